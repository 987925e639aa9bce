//! What this process says of itself to others who find the drives locked.

use std::process;

use dwk_base::Seams;
use dwk_drive::Holder;

/// The holder that this process is, running `program`.
pub(crate) fn here(program: &str, seams: &Seams) -> Holder {
    Holder {
        pid: process::id(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        since_unix_ns: seams.clock.unix_ns(),
        program: program.to_owned(),
    }
}
