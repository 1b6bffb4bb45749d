//! Every decoder of foreign bytes gets a million generated inputs, on the stable compiler: random bytes, and valid inputs with
//! damage. `SELVEDGE_FUZZ_INPUTS` asks for more, `SELVEDGE_FUZZ_SEED` repeats a run; a failure prints both and the input.

mod generate;
mod seeds;

use std::panic::{AssertUnwindSafe, catch_unwind};

use generate::Generator;

/// Inputs of one target in a run.
const INPUTS: u64 = 1_000_000;
/// Longest input, in bytes: long enough for several frames.
const INPUT_BYTES_MAX: usize = 4096;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs one target on every input; gives the first that makes it panic.
fn first_failure(inputs: u64, seed: u64, seeds: &[Vec<u8>], target: &(dyn Fn(&[u8]) + Sync)) -> Option<Vec<u8>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut generator = Generator::new(seed.wrapping_add(thread), INPUT_BYTES_MAX, seeds);
                    (0..inputs.div_ceil(threads)).find_map(|_| {
                        let input = generator.input().to_vec();
                        catch_unwind(AssertUnwindSafe(|| target(&input))).is_err().then_some(input)
                    })
                })
            })
            .collect();
        runs.into_iter().find_map(|run| run.join().expect("the generator does not panic"))
    })
}

fn fuzz(seeds: &[Vec<u8>], target: impl Fn(&[u8]) + Sync) {
    assert!(!seeds.is_empty(), "a target needs valid inputs to damage");
    let seed = setting("SELVEDGE_FUZZ_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let inputs = setting("SELVEDGE_FUZZ_INPUTS").unwrap_or(INPUTS);
    if let Some(input) = first_failure(inputs, seed, seeds, &target) {
        panic!("SELVEDGE_FUZZ_SEED={seed}: panics on {} bytes: b\"{}\"", input.len(), input.escape_ascii());
    }
}

/// The driver itself finds a bug that only a damaged valid input reaches.
#[test]
fn a_planted_bug_is_found() {
    let target = |bytes: &[u8]| assert!(!(bytes.starts_with(b"{\"length\":") && bytes.get(10).is_some_and(|byte| *byte >= 0x80)));
    std::panic::set_hook(Box::new(|_| {}));
    let found = first_failure(200_000, 1, &[b"{\"length\":1}".to_vec()], &target);
    let _ = std::panic::take_hook();
    assert!(found.is_some_and(|input| catch_unwind(|| target(&input)).is_err()));
}

#[test]
fn messages_to_a_runner() {
    fuzz(&seeds::to_runner(), |bytes| {
        selvedge_runtime::protocol::fuzz::to_runner(bytes);
    });
}

#[test]
fn messages_to_the_edge() {
    fuzz(&seeds::to_edge(), |bytes| {
        selvedge_runtime::protocol::fuzz::to_edge(bytes);
    });
}

#[test]
fn manifests_of_bundles() {
    fuzz(&seeds::manifests(), selvedge_origin::bundle::fuzz);
}

#[test]
fn lines_of_the_feed() {
    fuzz(&seeds::feed(), selvedge_origin::feed::fuzz);
}

#[test]
fn bodies_of_the_api() {
    let seeds = seeds::api_bodies();
    // Else nothing behind the parsers is reached.
    for seed in &seeds {
        assert_eq!(selvedge_origin::api::fuzz_bodies(seed), Ok(()), "{}", seed.escape_ascii());
    }
    fuzz(&seeds, |bytes| drop(selvedge_origin::api::fuzz_bodies(bytes)));
}

#[test]
fn heads_of_the_api() {
    fuzz(&seeds::api_heads(), selvedge_origin::api::fuzz_heads);
}

#[test]
fn questions_and_answers() {
    fuzz(&seeds::questions(), selvedge_origin::registry::fuzz_questions);
}

#[test]
fn cache_fields() {
    fuzz(&seeds::fields(), selvedge_edge::fuzz);
}

#[test]
fn requests_of_http1() {
    fuzz(&seeds::http1(), selvedge_edge::listen::fuzz);
}

#[test]
fn cache_settings() {
    fuzz(&seeds::cache_settings(), selvedge_origin::registry::fuzz_cache_settings);
}

#[test]
fn records_of_the_caches_disk() {
    fuzz(&selvedge_edge::cache::disk::fuzz_seeds(), selvedge_edge::cache::disk::fuzz);
}

#[test]
fn files_of_purges() {
    fuzz(&selvedge_edge::deployments::fuzz_journal_seeds(), selvedge_edge::deployments::fuzz_journal);
}

#[test]
fn tags_of_responses() {
    fuzz(&seeds::tags(), selvedge_edge::cache::tags::fuzz);
}

#[test]
fn wrangler_files() {
    fuzz(&seeds::wrangler(), selvedge::project::fuzz);
}

#[test]
fn site_files() {
    fuzz(&seeds::sites(), selvedge::site::fuzz);
}
