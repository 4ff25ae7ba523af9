//! Every bound on a component, in one table: what is counted, how much is allowed, and what an author does about it.
//!
//! Structural bounds are checked in one pass over the bytes, before anything recursive or quadratic looks at them. The
//! compiling process has bounds of its own (memory, CPU time, size of its result), which grow with the component. The
//! table in `docs/policy-guide.md` has the same rows; a test compares them.

use domain::policy::{PolicyLimits, PrepareFailure};

use crate::engine::{
    CORE_INSTANCES_PER_COMPONENT, MEMORIES_PER_COMPONENT, TABLE_ELEMENTS_MAX, TABLES_PER_COMPONENT,
};
use crate::inspect::refuse;

/// Largest component, bytes.
pub const COMPONENT_BYTES_MAX: usize = 32 << 20;
/// Largest body of one function, bytes. Straight-line code is not interrupted by fuel and compiles slowly.
pub const FUNCTION_BYTES_MAX: usize = 512 << 10;

/// One bound on a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Condition reason of a component that is over it.
    pub reason: &'static str,
    /// What is counted, with its unit.
    pub what: &'static str,
    /// Most of it.
    pub max: u64,
    /// What the author does about it.
    pub cure: &'static str,
}

impl Bound {
    /// The refusal of a component of which `found` was counted.
    pub(crate) fn exceeded(&self, found: u64) -> PrepareFailure {
        let Self { reason, what, max, cure } = self;
        refuse(reason, format!("it has {found} {what}; at most {max} are loaded"), *cure)
    }

    /// Nothing, or the refusal.
    pub(crate) fn check(&self, found: u64) -> Result<(), PrepareFailure> {
        if found <= self.max { Ok(()) } else { Err(self.exceeded(found)) }
    }
}

const SMALLER: &str = "strip debug information, or write the policy in a language with a smaller runtime";
const SPLIT: &str = "split the function, or turn large tables in code into data; build with optimisation";
const FLATTEN: &str = "compose fewer components into it; a policy needs only one";
const FEWER_MODULES: &str = "link libraries statically into one module";

macro_rules! bounds {
    ($($name:ident: $reason:literal, $what:literal, $max:expr, $cure:expr;)*) => {
        $(#[doc = concat!("Most ", $what, ".")]
        pub(crate) const $name: Bound = Bound { reason: $reason, what: $what, max: $max, cure: $cure };)*
        /// All structural bounds, as the documentation lists them.
        pub const BOUNDS: &[Bound] = &[$($name),*];
    };
}

bounds! {
    COMPONENT_BYTES: "TooLarge", "bytes", COMPONENT_BYTES_MAX as u64, SMALLER;
    FUNCTION_BYTES: "FunctionTooLarge", "bytes in the body of one function", FUNCTION_BYTES_MAX as u64, SPLIT;
    NESTING: "NestedTooDeep", "levels of components and modules inside one another", 16, FLATTEN;
    DEFINITIONS: "TooManyDefinitions", "components and modules defined or named in it", 1_000, FLATTEN;
    COMPONENT_INSTANCES: "TooManyComponentInstances", "instances of components, those inside instances counted each time", 256, FLATTEN;
    CORE_INSTANCES: "TooManyCoreInstances", "instances of core modules, those inside instances counted each time", CORE_INSTANCES_PER_COMPONENT as u64, FEWER_MODULES;
    MEMORIES: "TooManyMemories", "memories", MEMORIES_PER_COMPONENT as u64, "let its modules share one memory";
    MEMORY_BYTES: "MemoryTooLarge", "bytes of memory to begin with", PolicyLimits::MEMORY_BYTES_MAX, "reserve a smaller stack (`-Wl,-z,stack-size=65536` for zig and wasm-ld) and less static data";
    TABLES: "TooManyTables", "tables", TABLES_PER_COMPONENT as u64, FEWER_MODULES;
    TABLE_ELEMENTS: "TableTooLarge", "elements in one table to begin with", TABLE_ELEMENTS_MAX as u64, "take the address of fewer functions, or link with garbage collection of sections";
    SUPPLIED: "NeedsComponents", "components or modules to be given to a component inside it", 0, "compose it with what it needs: only complete components are loaded";
    FUNCTIONS: "TooManyFunctions", "functions", 100_000, SMALLER;
    TYPE_BYTES: "TooManyTypes", "bytes in its type sections", 1 << 20, "use fewer and smaller types";
    PARAMETERS: "TooManyParameters", "parameters and results of one function type", 256, "pass a pointer to a record";
    NAMES: "TooManyNames", "imports and exports", 65_536, "export only what the world asks for; strip what was exported for linking";
    GLOBALS: "TooManyGlobals", "globals", 20_000, SMALLER;
    DATA_SEGMENTS: "TooManyDataSegments", "data segments", 65_536, "let the linker merge data segments: build with optimisation";
    ELEMENTS: "TooManyElements", "elements in element segments", 131_072, SMALLER;
    LOCALS: "TooManyLocals", "locals in one function", 20_000, SPLIT;
    LOCALS_IN_ALL: "TooManyLocalsInAll", "locals in all functions", 4_000_000, "build with optimisation";
    BLOCKS: "TooManyBlocks", "blocks, loops and branches in one function", 131_072, SPLIT;
    BLOCK_DEPTH: "BlocksNestedTooDeep", "levels of blocks inside one another in one function", 10_000, SPLIT;
    BRANCH_TARGETS: "TooManyBranchTargets", "targets of branch tables in one function", 65_536, SPLIT;
    LOCALS_BY_BLOCKS: "FunctionTooComplex", "as its locals multiplied by its blocks, in one function", 64 << 20, SPLIT;
}

/// Memory of the compiling process for an empty component, bytes.
pub(crate) const COMPILE_MEMORY_BYTES_BASE: u64 = 192 << 20;
/// And so much more for each byte of the component, bytes.
pub(crate) const COMPILE_MEMORY_BYTES_PER_BYTE: u64 = 16;
/// CPU time of the compiling process for an empty component, seconds.
pub(crate) const COMPILE_CPU_SECONDS_BASE: u64 = 20;
/// And so much more for each begun MiB of the component, seconds.
pub(crate) const COMPILE_CPU_SECONDS_PER_MIB: u64 = 5;
/// Largest result of a compilation, bytes.
pub(crate) const CODE_BYTES_MAX: u64 = 96 << 20;

/// Bounds on one compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Memory that the process may write to, bytes.
    pub memory_bytes: u64,
    /// CPU time, seconds: a busy machine does not shorten it.
    pub cpu_seconds: u64,
    /// Size of the result, bytes.
    pub code_bytes: u64,
}

impl CompileLimits {
    /// The bounds for a component of this size: a small one cannot ask for much.
    pub fn of(component_bytes: usize) -> Self {
        let bytes = component_bytes as u64;
        Self {
            memory_bytes: COMPILE_MEMORY_BYTES_BASE + COMPILE_MEMORY_BYTES_PER_BYTE * bytes,
            cpu_seconds: COMPILE_CPU_SECONDS_BASE + COMPILE_CPU_SECONDS_PER_MIB * bytes.div_ceil(1 << 20),
            code_bytes: CODE_BYTES_MAX,
        }
    }
}

#[cfg(test)]
mod tests;
