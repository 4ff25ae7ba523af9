//! Components that are small and ask a compiler for much: what policies of a hostile tenant may be.
//!
//! Each is generated, deterministic and named. Those that a bound on structure refuses say which; the others are for the
//! compiling process to survive or to die of.

mod instances;
mod modules;

use wasm_encoder::{
    Component, ComponentExportKind, ComponentExportSection, ComponentInstanceSection, ComponentSection,
};

/// A hostile component.
#[derive(Clone, Debug)]
pub struct Bomb {
    /// What it is, in a few words with hyphens.
    pub name: &'static str,
    /// The component.
    pub component: Vec<u8>,
    /// Reason of the bound that refuses it; `None`: it is within them all, and is compiled.
    pub bound: Option<&'static str>,
}

/// The export without which nothing is compiled.
const POLICY: &str = "wicketgate:routing/policy@0.1.0";

/// All of them.
pub fn all() -> Vec<Bomb> {
    let mut bombs = instances::bombs();
    bombs.extend(modules::bombs());
    bombs
}

/// The one of this name.
///
/// # Panics
/// If there is none.
pub fn named(name: &str) -> Bomb {
    all().into_iter().find(|bomb| bomb.name == name).unwrap_or_else(|| panic!("no bomb is called {name}"))
}

/// Adds what makes a component pass for a policy from outside: an instance of the right name, with nothing in it.
/// `instances` are there already.
fn pretend(component: &mut Component, instances: u32) {
    let mut section = ComponentInstanceSection::new();
    section.export_items::<&str, _>([]);
    let mut exports = ComponentExportSection::new();
    exports.export(POLICY, ComponentExportKind::Instance, instances, None);
    component.section(&section).section(&exports);
}

/// A section by its number and content.
struct Raw {
    id: u8,
    content: Vec<u8>,
}

impl wasm_encoder::Encode for Raw {
    fn encode(&self, sink: &mut Vec<u8>) {
        self.content.encode(sink);
    }
}

impl ComponentSection for Raw {
    fn id(&self) -> u8 {
        self.id
    }
}

impl wasm_encoder::Section for Raw {
    fn id(&self) -> u8 {
        self.id
    }
}
