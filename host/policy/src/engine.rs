//! The one WebAssembly engine of the process, and what bounds every policy in it.

use domain::policy::PolicyLimits;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig, VariableOperatorCost,
};

/// Growth of linear memory granted within one `pick`, bytes: page faults cost time that fuel does not see.
pub(crate) const PICK_GROWTH_BYTES_MAX: u64 = 1 << 20;
/// Elements of one table.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 20_000;
/// What one call may have copied out of the guest, bytes. 4,096 scores need 16 KiB.
pub(crate) const HOSTCALL_BYTES_MAX: usize = 64 << 10;
/// Stack of one call, bytes.
const STACK_BYTES_MAX: usize = 256 << 10;
/// Core instances that one component may be made of: a guest that logs is three, guests of other languages up to 38.
pub(crate) const CORE_INSTANCES_PER_COMPONENT: u32 = 40;
/// Memories that one component may have; their sizes count together.
pub(crate) const MEMORIES_PER_COMPONENT: u32 = 4;
/// Tables that one component may have.
pub(crate) const TABLES_PER_COMPONENT: u32 = 8;

/// How much address space a memory reserves. Compiled code depends on it, so the compiling process is told which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reservation {
    /// What WebAssembly's whole address space takes: no access needs a check.
    Whole,
    /// As much as a policy may have, where address space is short: 6–20 % slower.
    Short,
}

impl Reservation {
    /// Its name on the command line of the compiling process.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Short => "short",
        }
    }

    /// The one of this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Whole, Self::Short].into_iter().find(|reservation| reservation.name() == name)
    }
}

/// Makes the engine. With pooling; where the address space is too short for it, with smaller reservations (6–20 %
/// slower), and then without pooling.
///
/// # Errors
/// When the host cannot run compiled code at all.
pub(crate) fn engine(instances: u32) -> wasmtime::Result<(Engine, Reservation)> {
    let pooled = |reservation| {
        let mut config = settings(reservation);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(instances)));
        Engine::new(&config).map(|engine| (engine, reservation))
    };
    pooled(Reservation::Whole).or_else(|error| {
        tracing::warn!(%error, "policies get smaller memory reservations: address space is short");
        pooled(Reservation::Short).or_else(|_| Ok((compiling(Reservation::Short)?, Reservation::Short)))
    })
}

/// An engine whose code runs in that of [`engine`]. It reserves nothing before something is instantiated in it.
///
/// # Errors
/// When the host cannot compile at all.
pub(crate) fn compiling(reservation: Reservation) -> wasmtime::Result<Engine> {
    Engine::new(&settings(reservation))
}

fn settings(reservation: Reservation) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .operator_cost(costs())
        .max_wasm_stack(STACK_BYTES_MAX)
        .wasm_relaxed_simd(false)
        // A guest's frames say nothing once it is stripped, and collecting them makes every fault dearer.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        .native_unwind_info(false)
        // The compiling process has one thread: its CPU time is bounded as a whole.
        .parallel_compilation(false);
    if reservation == Reservation::Short {
        config.memory_reservation(PolicyLimits::MEMORY_BYTES_MAX).memory_guard_size(64 << 10);
    }
    config
}

fn pooling(instances: u32) -> PoolingAllocationConfig {
    let mut pooling = PoolingAllocationConfig::new();
    pooling
        .total_component_instances(instances)
        .total_memories(instances)
        .total_core_instances(instances.saturating_mul(3))
        .total_tables(instances.saturating_mul(2))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_memory_size(PolicyLimits::MEMORY_BYTES_MAX as usize)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_unused_warm_slots(64);
    pooling
}

/// Prices that follow time, so that a budget of fuel is a bound on time: with the default of 1 each, the same fuel
/// lasts 1 ms of additions or 570 ms of cache-missing loads.
fn costs() -> OperatorCost {
    let mut costs = OperatorCost::new();
    memory_costs(&mut costs);
    arithmetic_costs(&mut costs);
    call_and_table_costs(&mut costs);
    costs.variable = VariableOperatorCost { memory_grow_per_page: 255, ..VariableOperatorCost::new() };
    costs
}

/// Sets the price of each named operator.
macro_rules! price {
    ($costs:ident, $price:literal, $($operator:ident)*) => { $($costs.$operator = $price;)* };
}

fn memory_costs(costs: &mut OperatorCost) {
    price!(costs, 16, I32Load I64Load F32Load F64Load I32Load8S I32Load8U I32Load16S I32Load16U);
    price!(costs, 16, I64Load8S I64Load8U I64Load16S I64Load16U I64Load32S I64Load32U);
    price!(costs, 16, I32Store I64Store F32Store F64Store I32Store8 I32Store16 I64Store8 I64Store16 I64Store32);
    price!(costs, 16, V128Load V128Load8x8S V128Load8x8U V128Load16x4S V128Load16x4U V128Load32x2S V128Load32x2U);
    price!(costs, 16, V128Load8Splat V128Load16Splat V128Load32Splat V128Load64Splat V128Load32Zero V128Load64Zero);
    price!(costs, 16, V128Load8Lane V128Load16Lane V128Load32Lane V128Load64Lane);
    price!(costs, 16, V128Store V128Store8Lane V128Store16Lane V128Store32Lane V128Store64Lane);
    price!(costs, 64, MemoryGrow TableGrow RefFunc);
    price!(costs, 8, MemorySize MemoryCopy MemoryFill MemoryInit DataDrop);
}

fn arithmetic_costs(costs: &mut OperatorCost) {
    price!(costs, 8, F32Sqrt F64Sqrt F32Div F64Div F32x4Sqrt F64x2Sqrt F32x4Div F64x2Div);
    price!(costs, 8, I32DivS I32DivU I32RemS I32RemU I64DivS I64DivU I64RemS I64RemU);
    price!(costs, 8, I32TruncF32S I32TruncF32U I32TruncF64S I32TruncF64U I64TruncF32S I64TruncF32U I64TruncF64S);
    price!(costs, 8, I64TruncF64U F32ConvertI32S F32ConvertI32U F32ConvertI64S F32ConvertI64U F64ConvertI32S);
    price!(costs, 8, F64ConvertI32U F64ConvertI64S F64ConvertI64U F32DemoteF64 F64PromoteF32);
    price!(costs, 8, I32TruncSatF32S I32TruncSatF32U I32TruncSatF64S I32TruncSatF64U);
    price!(costs, 8, I64TruncSatF32S I64TruncSatF32U I64TruncSatF64S I64TruncSatF64U);
    price!(costs, 8, I32x4TruncSatF32x4S I32x4TruncSatF32x4U I32x4TruncSatF64x2SZero I32x4TruncSatF64x2UZero);
    price!(costs, 8, F32x4ConvertI32x4S F32x4ConvertI32x4U F64x2ConvertLowI32x4S F64x2ConvertLowI32x4U);
    price!(costs, 8, F32x4DemoteF64x2Zero F64x2PromoteLowF32x4);
}

fn call_and_table_costs(costs: &mut OperatorCost) {
    price!(costs, 8, Call CallIndirect ReturnCall ReturnCallIndirect);
    price!(costs, 8, TableGet TableSet TableSize TableFill TableCopy TableInit ElemDrop);
}
