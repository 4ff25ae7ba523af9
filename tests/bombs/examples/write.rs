//! Writes every bomb into a directory: `cargo run -p bombs --example write -- DIRECTORY`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let directory: PathBuf = std::env::args_os().nth(1).unwrap_or_else(|| ".".into()).into();
    std::fs::create_dir_all(&directory)?;
    for bomb in bombs::all() {
        std::fs::write(directory.join(format!("{}.wasm", bomb.name)), bomb.component)?;
    }
    Ok(())
}
