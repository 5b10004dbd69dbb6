//! The named list of tests that the second kernel runs, in this order, in one boot.
//!
//! A line is a test program and the full name of one of its tests. Emulation is slow: a test earns its place here by
//! what is different there: 8021q and bridges that filter by VLAN, tc filters instead of tcx links.

/// Test program and test.
pub const SECOND_KERNEL: &[(&str, &str)] =
    &[("worlds", "a_switch_keeps_vlans_apart"), ("worlds", "the_internet_answers")];
