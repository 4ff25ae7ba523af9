//! Counts what a component is made of, in one pass over its bytes that neither recurses nor multiplies out.
//!
//! A component can define components inside it and make instances of them any number of times: 40 of them, each with two
//! instances of the one before, are a hundred bytes and 2⁴⁰ instances. So the number is computed, as a saturating product,
//! from what each definition costs. No type is read here: types nest, and their readers recurse.

use domain::policy::PrepareFailure;
use wasmparser::{
    BlockType, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, CompositeInnerType, Encoding, FunctionBody, Instance, Operator, Payload,
    TypeSectionReader,
};

use super::invalid;
use crate::bounds;

/// What one instance of a definition brings into being, itself included.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    component_instances: u64,
    core_instances: u64,
    memories: u64,
    memory_bytes: u64,
    tables: u64,
}

impl Cost {
    fn add(&mut self, other: Self) {
        let sum = |mine: &mut u64, more: u64| *mine = mine.saturating_add(more);
        sum(&mut self.component_instances, other.component_instances);
        sum(&mut self.core_instances, other.core_instances);
        sum(&mut self.memories, other.memories);
        sum(&mut self.memory_bytes, other.memory_bytes);
        sum(&mut self.tables, other.tables);
    }
}

/// A component or module that is being read.
#[derive(Debug)]
struct Frame {
    is_module: bool,
    cost: Cost,
    /// The index spaces of a component.
    components: Vec<Cost>,
    modules: Vec<Cost>,
}

/// What was counted so far.
#[derive(Debug, Default)]
pub(super) struct Census {
    frames: Vec<Frame>,
    /// The dearest component and module so far: what an instance exports is one of them.
    dearest_component: Cost,
    dearest_module: Cost,
    definitions: u64,
    pub(super) functions: u64,
    pub(super) function_bytes_max: usize,
    type_bytes: u64,
    names: u64,
    globals: u64,
    data_segments: u64,
    elements: u64,
    locals: u64,
}

impl Census {
    /// How many components and modules the current place is inside of; the outermost component is 1.
    pub(super) fn depth(&self) -> usize {
        self.frames.len()
    }

    /// Counts one part.
    ///
    /// # Errors
    /// The first bound that is exceeded, or `InvalidComponent`.
    pub(super) fn count(&mut self, payload: &Payload<'_>) -> Result<(), PrepareFailure> {
        match payload {
            Payload::Version { encoding, .. } => self.enter(*encoding == Encoding::Module),
            Payload::End(_) => self.leave(),
            Payload::CodeSectionEntry(body) => self.function(body),
            _ if self.frames.last().is_some_and(|frame| frame.is_module) => self.module_part(payload),
            _ => self.component_part(payload),
        }
    }

    fn enter(&mut self, is_module: bool) -> Result<(), PrepareFailure> {
        let cost = if is_module {
            Cost { core_instances: 1, ..Cost::default() }
        } else {
            Cost { component_instances: 1, ..Cost::default() }
        };
        self.frames.push(Frame { is_module, cost, components: Vec::new(), modules: Vec::new() });
        bounds::NESTING.check(self.frames.len() as u64)
    }

    fn leave(&mut self) -> Result<(), PrepareFailure> {
        let Some(Frame { is_module, cost, .. }) = self.frames.pop() else { return Ok(()) };
        if self.frames.is_empty() {
            return Ok(());
        }
        self.define(
            if is_module { ComponentExternalKind::Module } else { ComponentExternalKind::Component },
            cost,
        )
    }

    /// Adds to an index space of the current component.
    fn define(&mut self, kind: ComponentExternalKind, cost: Cost) -> Result<(), PrepareFailure> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        let dearest = match kind {
            ComponentExternalKind::Component => {
                frame.components.push(cost);
                &mut self.dearest_component
            }
            ComponentExternalKind::Module => {
                frame.modules.push(cost);
                &mut self.dearest_module
            }
            _ => return Ok(()),
        };
        let most = |mine: &mut u64, other: u64| *mine = (*mine).max(other);
        most(&mut dearest.component_instances, cost.component_instances);
        most(&mut dearest.core_instances, cost.core_instances);
        most(&mut dearest.memories, cost.memories);
        most(&mut dearest.memory_bytes, cost.memory_bytes);
        most(&mut dearest.tables, cost.tables);
        self.definitions += 1;
        bounds::DEFINITIONS.check(self.definitions)
    }

    fn component_part(&mut self, payload: &Payload<'_>) -> Result<(), PrepareFailure> {
        match payload {
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    if let Instance::Instantiate { module_index, .. } = instance.map_err(invalid)? {
                        let modules = self.frames.last().map(|frame| &frame.modules);
                        let cost = modules.and_then(|modules| modules.get(module_index as usize)).copied();
                        // An index of nothing is found by the validator.
                        self.instantiate(cost.unwrap_or_default())?;
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section.clone() {
                    if let ComponentInstance::Instantiate { component_index, .. } =
                        instance.map_err(invalid)?
                    {
                        let components = self.frames.last().map(|frame| &frame.components);
                        let cost = components.and_then(|all| all.get(component_index as usize)).copied();
                        self.instantiate(cost.unwrap_or_default())?;
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    self.alias(&alias.map_err(invalid)?)?;
                }
            }
            Payload::ComponentImportSection(section) => {
                self.named(section.count())?;
                for import in section.clone() {
                    let given = import.map_err(invalid)?.ty;
                    if matches!(given, ComponentTypeRef::Component(_) | ComponentTypeRef::Module(_)) {
                        return Err(bounds::SUPPLIED.exceeded(1));
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                self.named(section.count())?;
                for export in section.clone() {
                    let export = export.map_err(invalid)?;
                    // Each export is a new index of the same thing.
                    let cost = self.index(self.frames.len().saturating_sub(1), export.kind, export.index);
                    self.define(export.kind, cost)?;
                }
            }
            Payload::ComponentTypeSection(section) => return self.types(section.range().len()),
            Payload::CoreTypeSection(section) => return self.types(section.range().len()),
            _ => {}
        }
        Ok(())
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>) -> Result<(), PrepareFailure> {
        match *alias {
            ComponentAlias::Outer { kind, count, index } => {
                let kind = match kind {
                    ComponentOuterAliasKind::CoreModule => ComponentExternalKind::Module,
                    ComponentOuterAliasKind::Component => ComponentExternalKind::Component,
                    _ => return Ok(()),
                };
                let level = self.frames.len().saturating_sub(1).checked_sub(count as usize);
                let cost = level.map_or_else(Cost::default, |level| self.index(level, kind, index));
                self.define(kind, cost)
            }
            // Which one it is depends on types; the dearest so far is no cheaper.
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
                self.define(ComponentExternalKind::Component, self.dearest_component)
            }
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. } => {
                self.define(ComponentExternalKind::Module, self.dearest_module)
            }
            _ => Ok(()),
        }
    }

    /// Cost of what stands at `index` of an index space of the component at this level.
    fn index(&self, level: usize, kind: ComponentExternalKind, index: u32) -> Cost {
        let space = self.frames.get(level).and_then(|frame| match kind {
            ComponentExternalKind::Component => Some(&frame.components),
            ComponentExternalKind::Module => Some(&frame.modules),
            _ => None,
        });
        space.and_then(|space| space.get(index as usize)).copied().unwrap_or_default()
    }

    /// An instance is made whenever the current component is. The bounds hold for every component, also one of which no
    /// instance is made: the compiler looks at each.
    fn instantiate(&mut self, cost: Cost) -> Result<(), PrepareFailure> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        frame.cost.add(cost);
        bounds::COMPONENT_INSTANCES.check(frame.cost.component_instances)?;
        bounds::CORE_INSTANCES.check(frame.cost.core_instances)?;
        bounds::MEMORIES.check(frame.cost.memories)?;
        bounds::MEMORY_BYTES.check(frame.cost.memory_bytes)?;
        bounds::TABLES.check(frame.cost.tables)
    }

    fn module_part(&mut self, payload: &Payload<'_>) -> Result<(), PrepareFailure> {
        let total = |sum: &mut u64, more: u32| {
            *sum += u64::from(more);
            *sum
        };
        match payload {
            Payload::TypeSection(section) => {
                self.types(section.range().len())?;
                function_types(section)
            }
            Payload::ImportSection(section) => self.named(section.count()),
            Payload::ExportSection(section) => self.named(section.count()),
            Payload::FunctionSection(section) => {
                bounds::FUNCTIONS.check(total(&mut self.functions, section.count()))
            }
            Payload::GlobalSection(section) => {
                bounds::GLOBALS.check(total(&mut self.globals, section.count()))
            }
            Payload::DataSection(section) => {
                bounds::DATA_SEGMENTS.check(total(&mut self.data_segments, section.count()))
            }
            Payload::ElementSection(section) => {
                for element in section.clone() {
                    let count = match element.map_err(invalid)?.items {
                        wasmparser::ElementItems::Functions(items) => items.count(),
                        wasmparser::ElementItems::Expressions(_, items) => items.count(),
                    };
                    // An empty segment is one all the same.
                    bounds::ELEMENTS.check(total(&mut self.elements, count.max(1)))?;
                }
                Ok(())
            }
            Payload::MemorySection(section) => self.memories(section.clone().into_iter()),
            Payload::TableSection(section) => self.tables(section.clone().into_iter()),
            _ => Ok(()),
        }
    }

    fn memories(
        &mut self,
        memories: impl Iterator<Item = Result<wasmparser::MemoryType, wasmparser::BinaryReaderError>>,
    ) -> Result<(), PrepareFailure> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        for memory in memories {
            let memory = memory.map_err(invalid)?;
            let page = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(u64::MAX);
            frame.cost.memories += 1;
            frame.cost.memory_bytes =
                frame.cost.memory_bytes.saturating_add(memory.initial.saturating_mul(page));
            bounds::MEMORIES.check(frame.cost.memories)?;
            bounds::MEMORY_BYTES.check(frame.cost.memory_bytes)?;
        }
        Ok(())
    }

    fn tables<'a>(
        &mut self,
        tables: impl Iterator<Item = Result<wasmparser::Table<'a>, wasmparser::BinaryReaderError>>,
    ) -> Result<(), PrepareFailure> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        for table in tables {
            frame.cost.tables += 1;
            bounds::TABLES.check(frame.cost.tables)?;
            bounds::TABLE_ELEMENTS.check(table.map_err(invalid)?.ty.initial)?;
        }
        Ok(())
    }

    fn named(&mut self, names: u32) -> Result<(), PrepareFailure> {
        self.names += u64::from(names);
        bounds::NAMES.check(self.names)
    }

    fn types(&mut self, bytes: usize) -> Result<(), PrepareFailure> {
        self.type_bytes += bytes as u64;
        bounds::TYPE_BYTES.check(self.type_bytes)
    }

    /// One function: what it costs a compiler grows with its length, and with its locals times its blocks.
    fn function(&mut self, body: &FunctionBody<'_>) -> Result<(), PrepareFailure> {
        self.function_bytes_max = self.function_bytes_max.max(body.range().len());
        bounds::FUNCTION_BYTES.check(body.range().len() as u64)?;
        let mut locals = 0_u64;
        for group in body.get_locals_reader().map_err(invalid)? {
            locals += u64::from(group.map_err(invalid)?.0);
        }
        bounds::LOCALS.check(locals)?;
        self.locals += locals;
        bounds::LOCALS_IN_ALL.check(self.locals)?;
        let (mut blocks, mut targets, mut depth, mut deepest) = (0_u64, 0_u64, 0_u64, 0_u64);
        let mut operators = body.get_operators_reader().map_err(invalid)?;
        while !operators.eof() {
            match operators.read().map_err(invalid)? {
                Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => {
                    // One with a type of its own carries values, which are locals by another name.
                    blocks += if matches!(blockty, BlockType::FuncType(_)) { 2 } else { 1 };
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                Operator::End => depth = depth.saturating_sub(1),
                Operator::BrIf { .. } | Operator::Else => blocks += 1,
                Operator::BrTable { targets: table } => targets += u64::from(table.len()),
                _ => {}
            }
        }
        bounds::BLOCKS.check(blocks)?;
        bounds::BLOCK_DEPTH.check(deepest)?;
        bounds::BRANCH_TARGETS.check(targets)?;
        bounds::LOCALS_BY_BLOCKS.check(locals * (blocks + targets))
    }
}

fn function_types(section: &TypeSectionReader<'_>) -> Result<(), PrepareFailure> {
    for group in section.clone() {
        for one in group.map_err(invalid)?.types() {
            if let CompositeInnerType::Func(function) = &one.composite_type.inner {
                let values = function.params().len() + function.results().len();
                bounds::PARAMETERS.check(values as u64)?;
            }
        }
    }
    Ok(())
}
