//! Panics of the product: a task that ends by one is caught and logged, and a test that only looks at answers would not notice. What runs in this process
//! is seen by a hook, what runs in a process of its own by its log.

use std::sync::{Mutex, Once, PoisonError};

/// Where the product panicked in this process.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes panics from now on, but those of the tests themselves.
pub(crate) fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            if !place.starts_with("tests/") {
                SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(place);
            }
            before(panic);
        }));
    });
}

/// Fails where anything of the product has panicked in this process.
pub(crate) fn none_here() {
    if !std::thread::panicking() {
        let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(seen.is_empty(), "the product panicked at {seen:?}");
    }
}

/// Fails where a process's log tells of one.
pub(crate) fn none_in(log: &str) {
    if !std::thread::panicking() {
        assert!(!log.contains("panicked"), "a process panicked:\n{log}");
    }
}
