//! Who this process is, and whether another one still is.

use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use dwk_base::Result;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use rustix::process::{Pid, getpid, test_kill_process};

use crate::shared::system::{Process, unsupported};

/// This process's word, in a page that the kernel wipes in the child of a fork: so the answer is right on
/// either side of any fork, whoever made it, and costs no system call.
static SELF: OnceLock<&'static AtomicU64> = OnceLock::new();

/// What `/proc/…/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    pid: u64,
    state: u8,
    threads: u64,
    start: u64,
}

impl Stat {
    fn read(of: &str) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{of}/stat")).ok()?)
    }

    /// The program's name, between the first and the last bracket, may hold anything.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (pid, _) = text.split_once(' ')?;
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and the state is its third.
        let number = |index: usize| fields.get(index - 3)?.parse().ok();
        Some(Self {
            pid: pid.parse().ok()?,
            state: *fields.first()?.as_bytes().first()?,
            threads: number(20)?,
            start: number(22)?,
        })
    }
}

/// This process.
///
/// # Errors
/// `queue.unsupported` if `/proc` is not there, or shows other process ids than the system calls.
#[inline]
pub(in crate::shared) fn this_process() -> Result<Process> {
    let word = SELF.get().map_or(0, |page| page.load(Relaxed));
    Process::from_word(word).map_or_else(find_out, Ok)
}

#[cold]
fn find_out() -> Result<Process> {
    let page = if let Some(page) = SELF.get() {
        *page
    } else {
        let page = wiped_page().map_err(|errno| {
            unsupported("no page can be had that a fork wipes").caused_by(errno)
        })?;
        SELF.get_or_init(|| page)
    };
    let pid = getpid().as_raw_nonzero().get() as u64;
    let process = Stat::read("self")
        .filter(|stat| stat.pid == pid)
        .and_then(|stat| Process::new(pid, stat.start))
        .ok_or_else(|| unsupported("/proc/self/stat does not show this process"))?;
    page.store(process.word(), Relaxed);
    Ok(process)
}

#[allow(unsafe_code)]
fn wiped_page() -> Result<&'static AtomicU64, Errno> {
    // The kernel makes whole pages of it.
    let (bytes, protection) = (size_of::<u64>(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: a new private mapping of zeroes, never unmapped, aligned to a page, for this word only.
    unsafe {
        let page = mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::PRIVATE)?;
        madvise(page, bytes, Advice::LinuxWipeOnFork)?;
        Ok(AtomicU64::from_ptr(page.cast()))
    }
}

/// False if `process` has ended for certain: it will never write again.
///
/// A process that may not be looked at counts as living. One whose first thread has ended is a zombie for
/// its parent, but lives as long as another thread does.
pub(in crate::shared) fn is_alive(process: Process) -> bool {
    let Some(pid) = i32::try_from(process.pid()).ok().and_then(Pid::from_raw) else { return false };
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return false;
    }
    Stat::read(&process.pid().to_string()).is_none_or(|stat| is_it(process, &stat))
}

fn is_it(process: Process, stat: &Stat) -> bool {
    let same = Process::new(stat.pid, stat.start) == Some(process);
    let ended = matches!(stat.state, b'Z' | b'X') && stat.threads <= 1;
    same && !ended
}

/// What must be equal for two processes so that process ids and moments mean the same to both: the
/// namespaces of ids and, where there are such, of clocks.
///
/// # Errors
/// `queue.unsupported`
pub(in crate::shared) fn namespace() -> Result<u64> {
    let number = |which: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{which}")).ok()?;
        let text = link.to_string_lossy().into_owned();
        text.split_once('[')?.1.trim_end_matches(']').parse::<u32>().ok()
    };
    let pid = number("pid").ok_or_else(|| unsupported("/proc/self/ns/pid cannot be read"))?;
    Ok(u64::from(pid) << 32 | u64::from(number("time").unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const LINE: &[u8] = b"77 (a) Z (b) S 1 77 77 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 3 0 12345 0 0";

    #[test]
    fn the_line_of_a_program_with_brackets_in_its_name_is_read() {
        let stat = Stat { pid: 77, state: b'S', threads: 3, start: 12345 };
        assert_eq!(Stat::parse(LINE), Some(stat));
        for end in 0..LINE.len() - 10 {
            let _ = Stat::parse(&LINE[..end]);
        }
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn another_process_with_the_same_id_is_not_taken_for_the_first() {
        let me = this_process().unwrap();
        assert!(is_alive(me));
        assert_eq!(u64::from(me.pid()), u64::from(std::process::id()));
        let start = me.word() & ((1 << 42) - 1);
        assert!(!is_alive(Process::new(me.pid().into(), start + 1).unwrap()));
    }

    #[test]
    fn a_zombie_is_dead_unless_another_thread_lives() {
        let process = Process::new(77, 12345).unwrap();
        let stat = |state, threads| Stat { pid: 77, state, threads, start: 12345 };
        assert!(is_it(process, &stat(b'S', 1)) && is_it(process, &stat(b'Z', 2)));
        assert!(!is_it(process, &stat(b'Z', 1)) && !is_it(process, &stat(b'X', 0)));
    }

    #[test]
    fn a_killed_child_is_dead_before_and_after_its_parent_looks() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let stat = Stat::read(&child.id().to_string()).unwrap();
        let process = Process::new(stat.pid, stat.start).unwrap();
        assert!(is_alive(process));
        child.kill().unwrap();
        while is_alive(process) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!is_alive(process));
    }

    #[test]
    fn what_is_no_process_is_none() {
        assert!(Process::from_word(0).is_none() && Process::from_word(1 << 41).is_none());
        assert!(Process::new(1 << 22, 1).is_none() && Process::new(1, 1 << 42).is_none());
        assert_ne!(namespace().unwrap(), 0);
    }
}
