//! The cases: each starts its own proxies, measures them in turns, and leaves nothing behind.

mod bulk;
mod crowd;
mod fair;
pub(crate) mod floods;
mod idle;
mod limits;
mod login;
mod neighbour;
mod settings;
mod slots;
mod statements;
mod syscalls;
mod tenants;
mod throughput;

use crate::args::Case;
use crate::report::Report;
use crate::stage::Stage;

/// Runs one case; what fails is noted in the report.
pub(crate) fn run(case: Case, stage: &Stage, report: &mut Report) {
    println!("\n{case:?}");
    match case {
        Case::Throughput => throughput::run(stage, report),
        Case::Syscalls => syscalls::run(stage, report),
        Case::Login => login::run(stage, report),
        Case::Idle => idle::run(stage, report),
        Case::Bulk => bulk::run(stage, report),
        Case::Tenants => tenants::run(stage, report),
        Case::Neighbour => neighbour::run(stage, report),
        Case::Fair => fair::run(stage, report),
        Case::Crowd => crowd::run(stage, report),
        Case::Limits => limits::run(stage, report),
        Case::Settings => settings::run(stage, report),
        Case::Statements => statements::run(stage, report),
        Case::Slots => slots::run(stage, report),
    }
}
