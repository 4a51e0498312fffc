//! As much of `protoc` as `prost-build` calls: a set of descriptors for some files and all that they import.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;
use protox::Compiler;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (mut includes, mut files, mut output) = (Vec::new(), Vec::new(), None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--include_imports" | "--include_source_info" => {}
            "-I" => includes.push(arguments.next().ok_or("-I names no folder")?),
            "-o" => output = Some(PathBuf::from(arguments.next().ok_or("-o names no file")?)),
            flag if flag.starts_with('-') => return Err(format!("{flag} is not known here").into()),
            _ => files.push(argument),
        }
    }
    let mut compiler = Compiler::new(includes)?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(files)?;
    let descriptors = compiler.file_descriptor_set().encode_to_vec();
    fs::write(output.ok_or("-o is missing")?, descriptors)?;
    Ok(())
}
