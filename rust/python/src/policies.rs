//! Who answers for policies, as `dwkernel.plugins` does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dwk_base::{Error, codes};
use dwk_kernel::policies::{Asked, Batch, Desk, Notes, Question, Told, Verdict};
use dwk_kernel::{Access, Resource};
use pyo3::prelude::*;

use crate::errors::to_py;

/// Operation, access, what kind of thing it touches and which, principal, tenant, correlation id.
type Request = (&'static str, &'static str, &'static str, String, String, Option<String>, String);
/// A request, the code of its error, seconds, notes.
type Finished = (Request, Option<&'static str>, f64, Notes);

/// The desk on which questions to policies lie.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct PolicyDesk {
    pub(crate) desk: Arc<Desk>,
}

/// What was taken from it. Questions that are not answered are refused.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct PolicyBatch {
    questions: Mutex<Vec<Question>>,
    told: Vec<Told>,
    dropped: u64,
}

#[pymethods]
impl PolicyDesk {
    /// From now on operations are asked about, and wait so many seconds for an answer.
    fn serve(&self, limit_s: f64) {
        self.desk.serve(Duration::try_from_secs_f64(limit_s).unwrap_or(Duration::MAX));
    }

    /// From now on nobody is asked; what waits may go on.
    fn leave(&self, py: Python<'_>) {
        py.detach(|| self.desk.leave());
    }

    /// Up to so many questions and outcomes, as soon as there are any; none if nothing comes in time, None once
    /// the store is closed.
    fn take(&self, py: Python<'_>, limit: usize, patience_s: f64) -> Option<PolicyBatch> {
        let patience = Duration::try_from_secs_f64(patience_s).unwrap_or(Duration::MAX);
        let Batch { questions, told, dropped } = py.detach(|| self.desk.take(limit, patience))?;
        Some(PolicyBatch { questions: Mutex::new(questions), told, dropped })
    }
}

#[pymethods]
impl PolicyBatch {
    /// What is asked about.
    #[getter]
    fn requests(&self) -> Vec<Request> {
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.iter().map(|question| request(question.asked())).collect()
    }

    /// What is told.
    #[getter]
    fn finished(&self) -> Vec<Finished> {
        let finished = |told: &Told| {
            (request(&told.asked), told.code, told.elapsed.as_secs_f64(), told.notes.clone())
        };
        self.told.iter().map(finished).collect()
    }

    /// How many outcomes were not told, because too many waited.
    #[getter]
    fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Answers all: for each a reason why not, or notes, or neither.
    fn answer(
        &self,
        py: Python<'_>,
        verdicts: Vec<(Option<String>, Option<Notes>)>,
    ) -> PyResult<()> {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if questions.len() != verdicts.len() {
            let text = format!("{} verdicts on {} questions", verdicts.len(), questions.len());
            return Err(to_py(py, &Error::new(&codes::PLUGIN_FAILED, text)));
        }
        for (question, (reason, notes)) in questions.drain(..).zip(verdicts) {
            question.answer(match reason {
                Some(reason) => Verdict::Refuse(reason),
                None => Verdict::Allow(notes.unwrap_or_default()),
            });
        }
        Ok(())
    }
}

fn request(asked: &Asked) -> Request {
    let access = match asked.access {
        Access::Read => "read",
        Access::Write => "write",
        Access::Administer => "administer",
    };
    let (kind, which) = match &asked.resource {
        Resource::Pool => ("pool", String::new()),
        Resource::Bus => ("bus", String::new()),
        Resource::Stream(name) => ("stream", name.clone()),
        Resource::Records(space) => ("records", space.clone()),
        Resource::Containers => ("containers", String::new()),
        Resource::Container(name) => ("container", name.clone()),
        Resource::Object(key) => ("object", key.clone()),
    };
    let (principal, tenant) = (asked.principal.clone(), asked.tenant.clone());
    (asked.operation, access, kind, which, principal, tenant, asked.correlation.to_string())
}
