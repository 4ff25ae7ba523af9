//! suite
fn main(){}
