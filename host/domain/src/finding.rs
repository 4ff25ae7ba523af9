//! What is wrong with the configuration, where, and what to do about it. Bad input is data.

use std::fmt;
use std::sync::Arc;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is left out.
    Info,
    /// Something is ignored or left out; the rest is in force.
    Warning,
    /// The object, or the part named, is not in force.
    Error,
}

impl Severity {
    /// The lower-case word used in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Where a piece of configuration came from. Lines and columns count from 1; 0 is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// File (relative to the directory it was found in), or the API server's resource path; empty when unknown.
    pub file: Arc<str>,
    /// Line in that file.
    pub line: u32,
    /// Column in that line.
    pub column: u32,
}

/// One thing that is wrong, said so that its owner can mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object, as `Kind namespace/name`; empty for a document that could not be read.
    pub object: Arc<str>,
    /// Where it stands.
    pub origin: Origin,
    /// Path of the field, such as `spec.routes[0].inferenceServiceRef`; empty for the whole object.
    pub field: String,
    /// CamelCase reason, as it appears in a condition, such as `PolicyNotFound`.
    pub reason: &'static str,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it, in one sentence; empty if there is nothing to do.
    pub remedy: String,
}

impl Finding {
    /// As the finding is printed, without its severity: for a log, whose lines have a level of their own.
    pub fn sentence(&self) -> String {
        Printed { finding: self, has_severity: false }.to_string()
    }
}

impl fmt::Display for Finding {
    /// `file:line:column: error: Kind ns/name: field: message (remedy)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printed { finding: self, has_severity: true }.fmt(f)
    }
}

struct Printed<'a> {
    finding: &'a Finding,
    has_severity: bool,
}

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { severity, object, origin, field, reason, message, remedy } = self.finding;
        if !origin.file.is_empty() {
            write!(f, "{}:", origin.file)?;
            if origin.line > 0 {
                write!(f, "{}:", origin.line)?;
                if origin.column > 0 {
                    write!(f, "{}:", origin.column)?;
                }
            }
            f.write_str(" ")?;
        }
        if self.has_severity {
            write!(f, "{}: ", severity.as_str())?;
        }
        if !object.is_empty() {
            write!(f, "{object}: ")?;
        }
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        write!(f, "{message} [{reason}]")?;
        if !remedy.is_empty() {
            write!(f, " -> {remedy}")?;
        }
        Ok(())
    }
}
