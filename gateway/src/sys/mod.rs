//! The operating system's doors: one function a system call.

pub mod beneath;
pub mod listener;
