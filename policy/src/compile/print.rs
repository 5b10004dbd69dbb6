//! A generation as text, for people who look into the kernel's tables and for the tests.

use std::fmt;

use crate::tables::{Action, Generation, NamesFirst, PortPrefix, RuleEntry, RuleId};

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "generation {}", self.number)?;
        for (prefix, class) in &self.prefixes {
            writeln!(f, "  {prefix} class {}", class.0)?;
        }
        for view in &self.views {
            writeln!(f, "view {}", view.number)?;
            for (prefix, class) in &view.prefixes {
                writeln!(f, "  {prefix} class {}", class.0)?;
            }
        }
        if !self.views.is_empty() {
            writeln!(f, "rules")?;
        }
        for entry in &self.rules {
            writeln!(f, "  {entry}{}", Named(self, entry.rule))?;
        }
        Ok(())
    }
}

impl fmt::Display for RuleEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {} class {} ", self.policy.0, self.class.0)?;
        match self.protocol {
            None => write!(f, "any")?,
            Some(6) => write!(f, "TCP {}", self.ports)?,
            Some(17) => write!(f, "UDP {}", self.ports)?,
            Some(1) => write!(f, "ICMP {}", self.ports)?,
            Some(58) => write!(f, "ICMPv6 {}", self.ports)?,
            Some(132) => write!(f, "SCTP {}", self.ports)?,
            Some(other) => write!(f, "protocol {other}")?,
        }
        f.write_str(match self.action {
            Action::Undecided => ": undecided",
            Action::Allow => ": allow",
            Action::Deny => ": deny",
        })?;
        match self.names {
            NamesFirst::None => {}
            NamesFirst::Admin => f.write_str(" unless the admin tier allows a name")?,
            NamesFirst::All => f.write_str(" unless a rule allows a name")?,
        }
        f.write_str(if self.verify { ", verified" } else { "" })?;
        f.write_str(if self.shown { ", as shown" } else { "" })?;
        f.write_str(if self.audit.is_some() { ", audited" } else { "" })
    }
}

impl fmt::Display for PortPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = u32::from(self.port) + (0x1_0000u32 >> self.length) - 1;
        match self.length {
            16 => write!(f, "{}", self.port),
            _ => write!(f, "{}-{last}", self.port),
        }
    }
}

struct Named<'a>(&'a Generation, RuleId);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.rule_names.get(&self.1) {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}
