//! The two ways to have a program on a device: a pinned tcx link, and a filter of the clsact qdisc.

use std::error::Error;
use std::io;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier};

use super::Program;

/// Before other people's filters, which would decide first otherwise; a trunk may be the uplink, too.
const fn priority(which: Program) -> u16 {
    match which {
        Program::FromTrunk => 2,
        _ => 1,
    }
}

const HANDLE: TcHandle = TcHandle::new(0, 0x7467);

/// The pinned link's program becomes this one, in one step. Fails if the link's device is gone.
pub(super) fn update_link(program: &mut SchedClassifier, pin: &Path) -> Result<(), Box<dyn Error>> {
    let link = SchedClassifierLink::try_from(FdLink::from(PinnedLink::from_pin(pin)?))?;
    let id = program.attach_to_link(link)?;
    program.take_link(id)?; // closes this process's handle; the pin holds the link
    Ok(())
}

pub(super) fn link(
    program: &mut SchedClassifier,
    device: &str,
    which: Program,
    pin: &Path,
) -> Result<(), Box<dyn Error>> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(device, which.direction(), order)?;
    FdLink::try_from(program.take_link(id)?)?.pin(pin)?;
    Ok(())
}

/// Our filter at a device, as aya names it. Dropping it removes the filter.
fn filter(device: &str, which: Program) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(device, which.direction(), priority(which), HANDLE, None)
}

/// In one step; fails if there is no filter of ours.
pub(super) fn replace_filter(program: &mut SchedClassifier, device: &str, which: Program) -> Result<(), ProgramError> {
    let there = filter(device, which).map_err(ProgramError::IOError)?;
    let id = program.attach_to_link(there)?;
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

pub(super) fn add_filter(program: &mut SchedClassifier, device: &str, which: Program) -> Result<(), ProgramError> {
    let _there_already = qdisc_add_clsact(device);
    let options = TcAttachOptions::Netlink(NlOptions { priority: priority(which), handle: HANDLE, classid: None });
    let id = program.attach_with_options(device, which.direction(), options)?;
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Takes our filter away; one that is not there is no failure.
pub(super) fn remove_filter(device: &str, which: Program) {
    drop(filter(device, which));
}
