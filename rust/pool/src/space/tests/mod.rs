//! What a space promises, on drives in memory whose power can be cut.

mod damage;
mod degraded;
mod dropped;
mod hedging;
mod honest;
mod process;
mod repairing;
mod room;
mod storing;
mod world;
