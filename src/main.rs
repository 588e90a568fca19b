//! The program: arguments in, exit code out.

use std::process::ExitCode;

/// Cheaper than the system's allocator for many small, short-lived buffers.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bindgate::cli::main()
}
