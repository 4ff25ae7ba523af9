//! Core modules with too much of something.

use wasm_encoder::{
    CodeSection, Component, ConstExpr, DataSection, ElementSection, Elements, EntityType, ExportKind,
    ExportSection, Function, FunctionSection, GlobalSection, GlobalType, ImportSection, InstanceSection,
    MemorySection, MemoryType, Module, ModuleArg, ModuleSection, RefType, TableSection, TableType,
    TypeSection, ValType,
};

use crate::{Bomb, pretend};

const BLOCK: [u8; 2] = [0x02, 0x40];
const LOOP: [u8; 2] = [0x03, 0x40];
const END: u8 = 0x0b;

pub(crate) fn bombs() -> Vec<Bomb> {
    let bomb = |name, module: Module, bound| Bomb { name, component: component(&module, 1), bound };
    let function = |name, locals, body: Vec<u8>, bound| bomb(name, module_of(1, locals, &body), bound);
    let loops = |count: usize| [LOOP.as_slice(), &[END]].concat().repeat(count);
    let nested = |count: usize| [BLOCK.repeat(count), vec![END; count]].concat();
    vec![
        function("40000-locals-20000-loops", 40_000, loops(20_000), Some("TooManyLocals")),
        function("19000-locals-20000-loops", 19_000, loops(20_000), Some("FunctionTooComplex")),
        function("four-billion-locals", u32::MAX, Vec::new(), Some("TooManyLocals")),
        bomb("250-functions-of-19000-locals", module_of(250, 19_000, &[]), Some("TooManyLocalsInAll")),
        function("150000-loops", 0, loops(150_000), Some("TooManyBlocks")),
        function("150000-blocks-inside-each-other", 0, nested(150_000), Some("TooManyBlocks")),
        function("70000-branch-targets", 1, branch_table(70_000), Some("TooManyBranchTargets")),
        function("function-of-600-kb", 0, vec![0x01; 600 << 10], Some("FunctionTooLarge")),
        bomb("100001-functions", module_of(100_001, 0, &[]), Some("TooManyFunctions")),
        bomb("types-of-1-mib", types(50_000, 20), Some("TooManyTypes")),
        bomb("900-parameters", types(1, 900), Some("TooManyParameters")),
        bomb("70000-imports", imports(70_000), Some("TooManyNames")),
        bomb("70000-exports", exports(70_000), Some("TooManyNames")),
        bomb("20001-globals", globals(20_001), Some("TooManyGlobals")),
        bomb("70000-data-segments", data(70_000), Some("TooManyDataSegments")),
        bomb("140000-elements", elements(140_000), Some("TooManyElements")),
        bomb("140000-empty-element-segments", empty_segments(140_000), Some("TooManyElements")),
        bomb("five-memories", memories(5, 1), Some("TooManyMemories")),
        bomb("memory-of-17-mib", memories(1, 17 << 4), Some("MemoryTooLarge")),
        bomb("memory-of-4-gib", memories(1, 1 << 16), Some("MemoryTooLarge")),
        Bomb {
            name: "three-memories-of-6-mib-in-instances",
            component: component(&memories(1, 6 << 4), 3),
            bound: Some("MemoryTooLarge"),
        },
        bomb("nine-tables", tables(9, 1), Some("TooManyTables")),
        bomb("table-of-ten-million", tables(1, 10_000_000), Some("TableTooLarge")),
        function("65000-loops-1000-locals", 1_000, loops(65_000), None),
        function("9000-blocks-inside-each-other", 0, nested(9_000), None),
        function("1700-loops-19000-locals-in-use", 19_000, locals_in_use(19_000, 1_700), None),
        function("130000-blocks-inside-each-other", 0, nested(130_000), Some("BlocksNestedTooDeep")),
        function("60000-branch-targets", 1, branch_table(60_000), None),
        function("500-kb-of-loads", 0, loads(500 << 10), None),
        bomb("60-functions-of-500-kb", module_of(60, 1, &additions(500 << 10)), None),
        bomb("99000-functions", module_of(99_000, 0, &[]), None),
        bomb("calls-of-250-values", calls(60_000, 125), None),
    ]
}

/// A component with so many instances of a module.
fn component(module: &Module, instances: u32) -> Vec<u8> {
    let mut component = Component::new();
    let mut made = InstanceSection::new();
    for _ in 0..instances {
        made.instantiate::<[(&str, ModuleArg); 0], _>(0, []);
    }
    component.section(&ModuleSection(module)).section(&made);
    pretend(&mut component, 0);
    component.finish()
}

/// So many functions `() -> ()` with these locals and this body.
fn module_of(count: u32, locals: u32, body: &[u8]) -> Module {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    let mut function = Function::new((locals > 0).then_some((locals, ValType::I32)));
    function.raw(body.iter().copied());
    function.instructions().end();
    for _ in 0..count {
        functions.function(0);
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&types).section(&functions);
    if !body.is_empty() {
        module.section(&one_memory());
    }
    module.section(&code);
    module
}

fn one_memory() -> MemorySection {
    let mut memories = MemorySection::new();
    memories.memory(memory(1));
    memories
}

fn memory(pages: u64) -> MemoryType {
    MemoryType { minimum: pages, maximum: None, memory64: false, shared: false, page_size_log2: None }
}

/// `local.get 0`, `br_table` with targets that are all the function itself.
fn branch_table(targets: usize) -> Vec<u8> {
    let mut body = vec![0x20, 0, 0x0e];
    let mut number = targets;
    while number >= 0x80 {
        body.push((number % 0x80) as u8 | 0x80);
        number /= 0x80;
    }
    body.push(number as u8);
    body.resize(body.len() + targets + 1, 0);
    body
}

/// Each local is read and written in loops, so that all of them live through all blocks.
fn locals_in_use(locals: u32, loops: u32) -> Vec<u8> {
    let mut body = Vec::new();
    for at in 0..loops {
        body.extend(LOOP);
        for offset in [0, 7_919] {
            let index = (at * 5 + offset) % locals;
            for operator in [0x20, 0x21] {
                body.push(operator);
                leb(index, &mut body);
            }
        }
        // `local.get 0`, `br_if 0`.
        body.extend([0x20, 0, 0x0d, 0, END]);
    }
    body
}

fn leb(mut number: u32, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number % 0x80) as u8 | 0x80);
        number /= 0x80;
    }
    out.push(number as u8);
}

/// `i32.const 0`, `i32.load`, `drop`, again and again.
fn loads(bytes: usize) -> Vec<u8> {
    [0x41, 0, 0x28, 2, 0, 0x1a].repeat(bytes / 6)
}

/// `local.get 0`, `local.get 0`, `i32.add`, `local.set 0`.
fn additions(bytes: usize) -> Vec<u8> {
    [0x20, 0, 0x20, 0, 0x6a, 0x21, 0].repeat(bytes / 7)
}

/// Functions that hand many values to one another.
fn calls(count: usize, values: usize) -> Module {
    let mut types = TypeSection::new();
    types.ty().function(vec![ValType::I32; values], vec![ValType::I32; values]);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut function = Function::new([]);
    let gets = (0..values as u32).flat_map(|index| {
        let mut get = vec![0x20];
        leb(index, &mut get);
        get
    });
    function.raw(gets.collect::<Vec<u8>>());
    function.raw([0x10, 0].repeat(count));
    function.instructions().end();
    let mut code = CodeSection::new();
    code.function(&function);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&code);
    module
}

fn types(count: usize, parameters: usize) -> Module {
    let mut types = TypeSection::new();
    for _ in 0..count {
        types.ty().function(vec![ValType::I32; parameters], []);
    }
    let mut module = Module::new();
    module.section(&types);
    module
}

fn imports(count: usize) -> Module {
    let mut imports = ImportSection::new();
    for at in 0..count {
        let kind = GlobalType { val_type: ValType::I32, mutable: false, shared: false };
        imports.import("m", &at.to_string(), EntityType::Global(kind));
    }
    let mut module = Module::new();
    module.section(&imports);
    module
}

fn exports(count: usize) -> Module {
    let mut module = globals(1);
    let mut exports = ExportSection::new();
    for at in 0..count {
        exports.export(&at.to_string(), ExportKind::Global, 0);
    }
    module.section(&exports);
    module
}

fn globals(count: usize) -> Module {
    let mut globals = GlobalSection::new();
    for _ in 0..count {
        let kind = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
        globals.global(kind, &ConstExpr::i32_const(0));
    }
    let mut module = Module::new();
    module.section(&globals);
    module
}

fn data(count: usize) -> Module {
    let mut segments = DataSection::new();
    for _ in 0..count {
        segments.active(0, &ConstExpr::i32_const(0), [1]);
    }
    let mut module = Module::new();
    module.section(&one_memory()).section(&segments);
    module
}

fn elements(count: usize) -> Module {
    segments(&[count])
}

fn empty_segments(count: usize) -> Module {
    segments(&vec![0; count])
}

/// Passive segments with so many elements each.
fn segments(counts: &[usize]) -> Module {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut segments = ElementSection::new();
    for count in counts {
        segments.passive(Elements::Functions(vec![0; *count].into()));
    }
    let mut code = CodeSection::new();
    let mut function = Function::new([]);
    function.instructions().end();
    code.function(&function);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&segments).section(&code);
    module
}

fn memories(count: usize, pages: u64) -> Module {
    let mut memories = MemorySection::new();
    for _ in 0..count {
        memories.memory(memory(pages));
    }
    let mut module = Module::new();
    module.section(&memories);
    module
}

fn tables(count: usize, elements: u64) -> Module {
    let mut tables = TableSection::new();
    for _ in 0..count {
        tables.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: elements,
            maximum: None,
            shared: false,
        });
    }
    let mut module = Module::new();
    module.section(&tables);
    module
}
