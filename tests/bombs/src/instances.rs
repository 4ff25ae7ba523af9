//! Components inside components, and instances of instances.

use wasm_encoder::{
    Alias, Component, ComponentAliasSection, ComponentExportKind, ComponentExportSection,
    ComponentImportSection, ComponentInstanceSection, ComponentOuterAliasKind, ComponentSectionId,
    ComponentType, ComponentTypeRef, ComponentTypeSection, ComponentValType, InstanceSection, Module,
    ModuleArg, ModuleSection, NestedComponentSection, PrimitiveValType,
};

use crate::{Bomb, Raw, pretend};

pub(crate) fn bombs() -> Vec<Bomb> {
    let bomb = |name, component: Component, bound| Bomb { name, component: component.finish(), bound };
    vec![
        bomb("doubling-40-levels", doubling(40), Some("NestedTooDeep")),
        bomb("doubling-14-levels", doubling(14), Some("TooManyComponentInstances")),
        bomb("doubling-beside-each-other", beside(40), Some("TooManyComponentInstances")),
        bomb("doubling-from-outside", from_outside(40), Some("TooManyComponentInstances")),
        bomb("doubling-through-exports", through_exports(40), Some("TooManyComponentInstances")),
        bomb("doubling-of-modules", doubling_modules(), Some("TooManyCoreInstances")),
        bomb("nested-10000-levels", nested(10_000), Some("NestedTooDeep")),
        bomb("1001-components", many_components(1_001), Some("TooManyDefinitions")),
        bomb("5000-aliases-of-one", many_aliases(5_000), Some("TooManyDefinitions")),
        bomb("1001-modules", many_modules(1_001), Some("TooManyDefinitions")),
        bomb("41-core-instances", core_instances(41), Some("TooManyCoreInstances")),
        bomb("300-component-instances", component_instances(300), Some("TooManyComponentInstances")),
        bomb("needs-a-component", needs_a_component(), Some("NeedsComponents")),
        bomb("component-type-of-1-mib", large_type(1 << 20), Some("TooManyTypes")),
        bomb("60000-aliases-of-core-exports", core_aliases(60_000), None),
        bomb("types-nested-200000-levels", nested_types(200_000), None),
        bomb("types-that-double-100-times", doubling_types(100), None),
    ]
}

fn nest(inner: &Component) -> Component {
    let mut outer = Component::new();
    outer.section(&NestedComponentSection(inner));
    outer
}

fn twice(index: u32) -> ComponentInstanceSection {
    let mut instances = ComponentInstanceSection::new();
    for _ in 0..2 {
        instances.instantiate::<[(&str, ComponentExportKind, u32); 0], _>(index, []);
    }
    instances
}

/// Each level has two instances of the level inside it: 96 KB of them were 1.6 GiB.
fn doubling(levels: usize) -> Component {
    let mut component = Component::new();
    for _ in 0..levels {
        component = nest(&component);
        component.section(&twice(0));
    }
    pretend(&mut component, 2);
    component
}

/// No level is inside another: each takes the one before it from its surroundings.
fn beside(count: u32) -> Component {
    let mut all = Component::new();
    all.section(&NestedComponentSection(&Component::new()));
    for before in 0..count {
        let mut one = Component::new();
        let mut aliases = ComponentAliasSection::new();
        aliases.alias(Alias::Outer { kind: ComponentOuterAliasKind::Component, count: 1, index: before });
        one.section(&aliases).section(&twice(0));
        all.section(&NestedComponentSection(&one));
    }
    all.section(&twice(count));
    pretend(&mut all, 2);
    all
}

/// The same from two levels up.
fn from_outside(count: u32) -> Component {
    let mut all = Component::new();
    all.section(&NestedComponentSection(&Component::new()));
    for before in 0..count {
        let mut inner = Component::new();
        let mut aliases = ComponentAliasSection::new();
        aliases.alias(Alias::Outer { kind: ComponentOuterAliasKind::Component, count: 2, index: before });
        inner.section(&aliases).section(&twice(0));
        let mut one = nest(&inner);
        one.section(&twice(0));
        all.section(&NestedComponentSection(&one));
    }
    pretend(&mut all, 0);
    all
}

/// Components that come out of instances, so that only types say which they are.
fn through_exports(count: u32) -> Component {
    let mut all = Component::new();
    all.section(&NestedComponentSection(&Component::new()));
    let (mut components, mut instances) = (1, 0);
    for _ in 0..count {
        let mut exporter = Component::new();
        let mut aliases = ComponentAliasSection::new();
        aliases.alias(Alias::Outer {
            kind: ComponentOuterAliasKind::Component,
            count: 1,
            index: components - 1,
        });
        let mut doubled = Component::new();
        let mut inner = ComponentAliasSection::new();
        inner.alias(Alias::Outer { kind: ComponentOuterAliasKind::Component, count: 1, index: 0 });
        doubled.section(&inner).section(&twice(0));
        let mut exports = ComponentExportSection::new();
        exports.export("c", ComponentExportKind::Component, 1, None);
        exporter.section(&aliases).section(&NestedComponentSection(&doubled)).section(&exports);
        all.section(&NestedComponentSection(&exporter));
        let mut made = ComponentInstanceSection::new();
        made.instantiate::<[(&str, ComponentExportKind, u32); 0], _>(components, []);
        let mut taken = ComponentAliasSection::new();
        taken.alias(Alias::InstanceExport {
            instance: instances,
            kind: ComponentExportKind::Component,
            name: "c",
        });
        all.section(&made).section(&taken);
        components += 2;
        instances += 1;
    }
    pretend(&mut all, instances);
    all
}

fn modules_made(count: u32) -> InstanceSection {
    let mut instances = InstanceSection::new();
    for _ in 0..count {
        instances.instantiate::<[(&str, ModuleArg); 0], _>(0, []);
    }
    instances
}

fn core_instances(count: u32) -> Component {
    let mut component = Component::new();
    component.section(&ModuleSection(&Module::new())).section(&modules_made(count));
    pretend(&mut component, 0);
    component
}

/// Few levels, many modules on the innermost.
fn doubling_modules() -> Component {
    let mut component = Component::new();
    component.section(&ModuleSection(&Module::new())).section(&modules_made(10));
    for _ in 0..3 {
        component = nest(&component);
        component.section(&twice(0));
    }
    pretend(&mut component, 2);
    component
}

fn nested(levels: usize) -> Component {
    // From the innermost outwards, by hand: the encoder would copy each level into the next.
    let mut sizes = vec![8_usize];
    for _ in 1..levels {
        let inner = *sizes.last().unwrap_or(&8);
        sizes.push(8 + 1 + leb_len(inner) + inner);
    }
    let mut bytes = Vec::with_capacity(sizes.last().copied().unwrap_or(8));
    for (at, size) in sizes.iter().enumerate().rev() {
        let _ = size;
        bytes.extend_from_slice(b"\0asm\x0d\0\x01\0");
        if at > 0 {
            bytes.push(ComponentSectionId::Component.into());
            leb(sizes[at - 1], &mut bytes);
        }
    }
    let mut component = Component::new();
    component.section(&Raw { id: ComponentSectionId::Component.into(), content: bytes });
    pretend(&mut component, 0);
    component
}

fn leb(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number % 0x80) as u8 | 0x80);
        number /= 0x80;
    }
    out.push(number as u8);
}

fn leb_len(number: usize) -> usize {
    let mut bytes = Vec::new();
    leb(number, &mut bytes);
    bytes.len()
}

fn many_components(count: usize) -> Component {
    let mut component = Component::new();
    let empty = Component::new();
    for _ in 0..count {
        component.section(&NestedComponentSection(&empty));
    }
    pretend(&mut component, 0);
    component
}

fn many_modules(count: usize) -> Component {
    let mut component = Component::new();
    let empty = Module::new();
    for _ in 0..count {
        component.section(&ModuleSection(&empty));
    }
    pretend(&mut component, 0);
    component
}

fn many_aliases(count: u32) -> Component {
    let mut inner = Component::new();
    let mut aliases = ComponentAliasSection::new();
    for _ in 0..count {
        aliases.alias(Alias::Outer { kind: ComponentOuterAliasKind::Component, count: 1, index: 0 });
    }
    inner.section(&aliases);
    let mut component = nest(&Component::new());
    component.section(&NestedComponentSection(&inner));
    pretend(&mut component, 0);
    component
}

fn component_instances(count: u32) -> Component {
    let mut component = nest(&Component::new());
    let mut instances = ComponentInstanceSection::new();
    for _ in 0..count {
        instances.instantiate::<[(&str, ComponentExportKind, u32); 0], _>(0, []);
    }
    component.section(&instances);
    pretend(&mut component, count);
    component
}

/// What it costs depends on what it is given.
fn needs_a_component() -> Component {
    let mut inner = Component::new();
    let mut types = ComponentTypeSection::new();
    types.component(&ComponentType::new());
    let mut imports = ComponentImportSection::new();
    imports.import("c", ComponentTypeRef::Component(0));
    inner.section(&types).section(&imports).section(&twice(0));
    let mut component = nest(&inner);
    pretend(&mut component, 0);
    component
}

fn large_type(bytes: usize) -> Component {
    let mut types = ComponentTypeSection::new();
    for _ in 0..bytes / 4 {
        types.defined_type().tuple([PrimitiveValType::U8; 3]);
    }
    let mut component = Component::new();
    component.section(&types);
    pretend(&mut component, 0);
    component
}

fn core_aliases(count: u32) -> Component {
    let mut module = Module::new();
    let mut globals = wasm_encoder::GlobalSection::new();
    let kind =
        wasm_encoder::GlobalType { val_type: wasm_encoder::ValType::I32, mutable: false, shared: false };
    globals.global(kind, &wasm_encoder::ConstExpr::i32_const(0));
    let mut exports = wasm_encoder::ExportSection::new();
    exports.export("g", wasm_encoder::ExportKind::Global, 0);
    module.section(&globals).section(&exports);
    let mut aliases = ComponentAliasSection::new();
    for _ in 0..count {
        aliases.alias(Alias::CoreInstanceExport {
            instance: 0,
            kind: wasm_encoder::ExportKind::Global,
            name: "g",
        });
    }
    let mut component = Component::new();
    component.section(&ModuleSection(&module)).section(&modules_made(1)).section(&aliases);
    pretend(&mut component, 0);
    component
}

/// Types inside types: a reader that recurses runs out of stack.
fn nested_types(levels: usize) -> Component {
    // One type; it is a component type with one declaration, a type; and so on.
    let mut content = vec![1];
    for _ in 0..levels {
        content.extend_from_slice(&[0x41, 1, 1]);
    }
    content.extend_from_slice(&[0x41, 0]);
    let mut component = Component::new();
    component.section(&Raw { id: ComponentSectionId::Type.into(), content });
    pretend(&mut component, 0);
    component
}

/// Each is a pair of the one before.
fn doubling_types(count: u32) -> Component {
    let mut types = ComponentTypeSection::new();
    types.defined_type().tuple([PrimitiveValType::U8; 2]);
    for before in 0..count {
        types.defined_type().tuple([ComponentValType::Type(before); 2]);
    }
    let mut component = Component::new();
    component.section(&types);
    pretend(&mut component, 0);
    component
}
