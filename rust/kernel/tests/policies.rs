//! Policies are asked before and told after, many at a time, and hold nobody up for longer than they may.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use dwk_base::{Error, Result, Seams, SystemRandom, codes};
use dwk_catalog::ContainerName;
use dwk_kernel::operations::{CreateContainer, GetContainer, GetDesk, Status};
use dwk_kernel::policies::{Desk, Notes, Verdict};
use dwk_kernel::{
    Access, Context, Create, Deadline, Drives, Kernel, OpenSpec, Operation, Principal, Resource,
};

const SOON: Duration = Duration::from_secs(20);

struct Store {
    kernel: Kernel,
    seams: Seams,
}

impl Store {
    fn new(name: &str) -> Self {
        let seams = Seams::system();
        let drives = (1..=3).map(|n| format!("memory://policies-{name}-{n}")).collect();
        let drives = Some(Drives::At(drives));
        let spec = OpenSpec { drives, create: Create::New, ..OpenSpec::default() };
        let kernel = Kernel::open(&spec, &context(&seams, SOON), &seams).unwrap();
        Self { kernel, seams }
    }

    fn execute<O: Operation>(&self, operation: O) -> Result<O::Outcome> {
        self.kernel.execute(&context(&self.seams, SOON), operation)
    }

    fn desk(&self) -> Arc<Desk> {
        self.execute(GetDesk).unwrap()
    }

    fn create(&self, name: &str) -> Result<()> {
        let name = ContainerName::new(name).unwrap();
        self.execute(CreateContainer { name: &name, options: b"" }).map(drop)
    }
}

fn context(seams: &Seams, limit: Duration) -> Context {
    let deadline = Deadline::after(Arc::clone(&seams.clock), limit);
    let context = Context::new(Principal::new("alice").unwrap(), deadline, &SystemRandom);
    context.in_tenant("acme").unwrap()
}

/// Serves the desk until `work` is done: `decide` is shown each question.
fn served<T>(
    store: &Store,
    decide: impl Fn(&dwk_kernel::policies::Asked) -> Verdict + Send,
    work: impl FnOnce() -> T,
) -> (T, Vec<dwk_kernel::policies::Told>) {
    let desk = store.desk();
    desk.serve(SOON);
    std::thread::scope(|scope| {
        let (stop, stopped) = channel::<()>();
        let serving = scope.spawn({
            let desk = Arc::clone(&desk);
            move || {
                let mut told = Vec::new();
                loop {
                    let batch = desk.take(64, Duration::from_millis(5)).unwrap();
                    let is_idle = batch.questions.is_empty() && batch.told.is_empty();
                    told.extend(batch.told);
                    for question in batch.questions {
                        let verdict = decide(question.asked());
                        question.answer(verdict);
                    }
                    if is_idle && stopped.try_recv().is_ok() {
                        return told;
                    }
                }
            }
        });
        let done = work();
        stop.send(()).unwrap();
        let told = serving.join().unwrap();
        desk.leave();
        (done, told)
    })
}

fn noted(text: &str) -> Verdict {
    Verdict::Allow(Notes::from([("note".to_owned(), text.to_owned())]))
}

#[test]
fn a_policy_sees_what_is_asked_and_how_it_ended_with_its_own_notes() {
    let store = Store::new("sees");
    let decide = |asked: &dwk_kernel::policies::Asked| match &asked.resource {
        Resource::Container(name) if name == "secret" => Verdict::Refuse("it is secret".into()),
        _ => noted(asked.operation),
    };
    let (errors, told) = served(&store, decide, || {
        store.create("open").unwrap();
        let name = ContainerName::new("none").unwrap();
        let missing = store.execute(GetContainer { name: &name }).unwrap_err();
        [store.create("secret").unwrap_err(), missing]
    });
    assert!(errors[0].is(&codes::POLICY_REFUSED), "{}", errors[0]);
    assert_eq!(errors[0].message(), "it is secret");
    assert!(errors[0].correlation().is_some());
    assert_eq!(told.len(), 2, "what was refused did not begin");
    let made = &told[0];
    assert_eq!((made.asked.operation, made.asked.access), ("container.create", Access::Write));
    assert_eq!(made.asked.resource, Resource::Container("open".into()));
    assert_eq!(
        (made.asked.principal.as_str(), made.asked.tenant.as_deref()),
        ("alice", Some("acme"))
    );
    assert_eq!((made.code, made.notes["note"].as_str()), (None, "container.create"));
    let missing = &told[1];
    assert_eq!(missing.code, Some("container.not_found"));
    assert_eq!(Some(missing.asked.correlation), errors[1].correlation());
    let name = ContainerName::new("secret").unwrap();
    assert!(store.execute(GetContainer { name: &name }).is_err(), "it was not made");
    store.create("secret").expect("nobody is asked any more");
}

#[test]
fn questions_that_come_together_are_taken_together_and_each_gets_its_own_answer() {
    let store = Store::new("together");
    let desk = store.desk();
    desk.serve(SOON);
    let outcomes = std::thread::scope(|scope| {
        let create = |n: usize| store.create(&format!("c{n}"));
        let threads: Vec<_> = (0..16).map(|n| scope.spawn(move || create(n))).collect();
        let mut questions = Vec::new();
        while questions.len() < 16 {
            questions.extend(desk.take(64, SOON).unwrap().questions);
        }
        for question in questions {
            let Resource::Container(name) = question.asked().resource.clone() else {
                unreachable!()
            };
            let is_even = name[1..].parse::<usize>().unwrap().is_multiple_of(2);
            question.answer(if is_even { noted("") } else { Verdict::Refuse(name) });
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for (n, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(()) => assert_eq!(n % 2, 0),
            Err(error) => assert_eq!(error.message(), format!("c{n}")),
        }
    }
    let batch = desk.take(3, SOON).unwrap();
    assert_eq!(batch.told.len(), 3, "no more than was asked for");
    let rest = desk.take(64, SOON).unwrap().told.len();
    assert_eq!(rest, 5);
}

#[test]
fn a_policy_that_does_not_answer_costs_its_time_and_the_operation_is_refused() {
    let store = Store::new("silent");
    let desk = store.desk();
    desk.serve(Duration::from_millis(50));
    let begin = Instant::now();
    let error = store.create("a").unwrap_err();
    assert!(
        error.is(&codes::PLUGIN_TIMEOUT) && begin.elapsed() < Duration::from_secs(5),
        "{error}"
    );
    // Its answer comes too late, and changes nothing.
    desk.take(64, SOON).unwrap().questions.remove(0).answer(noted(""));
    let name = ContainerName::new("a").unwrap();
    desk.leave();
    assert!(store.execute(GetContainer { name: &name }).is_err());
    // Somebody who takes a question and goes away.
    desk.serve(SOON);
    let error = std::thread::scope(|scope| {
        let asking = scope.spawn(|| store.create("b").unwrap_err());
        drop(desk.take(64, SOON).unwrap());
        asking.join().unwrap()
    });
    assert!(error.is(&codes::POLICY_REFUSED), "{error}");
    // The caller's own time comes first.
    let context = context(&store.seams, Duration::from_millis(30));
    let asking = || store.kernel.execute(&context, Status).unwrap_err();
    let error = std::thread::scope(|scope| scope.spawn(asking).join().unwrap());
    assert!(error.is(&codes::CONTEXT_DEADLINE), "{error}");
    // Policies that answer nothing can be sent away.
    std::thread::scope(|scope| scope.spawn(|| store.desk().leave()).join().unwrap());
    store.create("c").unwrap();
}

#[test]
fn what_waits_goes_on_when_the_desk_is_left_and_at_the_end_who_serves_is_told() {
    let store = Store::new("left");
    let desk = store.desk();
    desk.serve(SOON);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| store.create("a"));
        while desk.take(0, Duration::from_millis(20)).unwrap().questions.is_empty()
            && !asking.is_finished()
        {
            std::thread::sleep(Duration::from_millis(20));
            desk.leave();
        }
        asking.join().unwrap().unwrap();
    });
    desk.serve(SOON);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| desk.take(64, SOON));
        store.kernel.close(&context(&store.seams, SOON)).unwrap();
        assert!(serving.join().unwrap().is_none(), "it would wait for ever");
    });
}

#[test]
fn who_answers_may_use_the_store_and_is_not_asked_about_that() {
    let store = Store::new("uses");
    let desk = store.desk();
    desk.serve(SOON);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| store.create("a"));
        let batch = desk.take(64, SOON).unwrap();
        let name = ContainerName::new("none").unwrap();
        let error: Error = store.execute(GetContainer { name: &name }).unwrap_err();
        assert!(error.is(&codes::CONTAINER_NOT_FOUND), "{error}");
        batch.questions.into_iter().for_each(|question| question.answer(noted("")));
        asking.join().unwrap().unwrap();
    });
    let operations: HashSet<_> =
        desk.take(64, SOON).unwrap().told.iter().map(|told| told.asked.operation).collect();
    assert_eq!(operations, HashSet::from(["container.create"]));
}
