//! Members that come to what they were asked for when nobody wants it any more.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use std::thread::sleep;
use std::time::Duration;

use common::{Body, World, commit_range, numbers, small};
use dwk_base::codes;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_journal::Options;

#[test]
fn what_a_drive_was_asked_before_it_became_a_member_does_not_harm_it_later() {
    for (body, call) in [(Body::Slots, Operation::WriteLog), (Body::Blobs, Operation::Put)] {
        let options = Options { member_timeout: Duration::from_millis(100), ..small() };
        let world = World::new(&[body; 3], 2, options, 1);
        let journal = world.create().unwrap();
        commit_range(&journal, 1..20).unwrap();
        world.faulty(2).inject(Fault::new(Effect::Hang).on(call).times(1));
        let join = || world.register.join(2);
        let error = journal.add_member(world.member(2), &join).unwrap_err();
        assert!(error.is(&codes::DRIVE_TIMEOUT), "{error}");
        drop(journal);
        // The same process opens it again, and the drive answers by now, but for that one call.
        let (journal, _) = world.open().unwrap();
        journal.add_member(world.member(2), &join).unwrap();
        commit_range(&journal, 20..25).unwrap();
        let before = world.memories[2].entries();
        world.faulty(2).release();
        sleep(Duration::from_millis(200));
        assert_eq!(world.memories[2].entries(), before, "{body:?}");
        commit_range(&journal, 25..30).unwrap();
        assert_eq!(journal.status().members.len(), 3);
        drop(journal);
        let (journal, _) = world.open_read_only(|index| index == 2).unwrap();
        assert_eq!(numbers(&journal), (1..30).collect::<Vec<_>>());
    }
}
