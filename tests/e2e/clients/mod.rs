//! Clients that are not ours, against the built binary: curl, aioquic, Chromium. `./x test` installs what is missing.

mod browser;
mod curl;
mod quic;
mod suite;

/// Runs a program of the machine to its end; gives what it printed.
fn output(program: &std::path::Path, arguments: &[&str]) -> String {
    let result = std::process::Command::new(program).args(arguments).output();
    let output = result.unwrap_or_else(|error| panic!("{}: {error} (./x test installs it)", program.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {}\n{text}\n{}", program.display(), output.status, String::from_utf8_lossy(&output.stderr));
    text
}
