//! The only place that enters and leaves isolates, and the only owner of a `JsRuntime`.
//!
//! rusty_v8 enters an isolate when it is made and expects it to be entered when it is used or dropped; many on one thread
//! work only if each is left again after every use (a drop of one that is not entered aborts the process).

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use deno_core::{JsRuntime, RuntimeOptions, v8};

/// A `JsRuntime` that is entered only while someone holds an [`Entered`].
pub(crate) struct Engine {
    runtime: ManuallyDrop<JsRuntime>,
}

/// The runtime, entered. Leaves it when dropped.
pub(crate) struct Entered<'e> {
    engine: &'e mut Engine,
}

impl Engine {
    /// Makes a runtime and leaves its isolate.
    pub(crate) fn new(options: RuntimeOptions) -> Self {
        let mut runtime = JsRuntime::new(options);
        // SAFETY: the isolate was entered on this thread by being made, and is the current one: every other was left.
        unsafe { runtime.v8_isolate().exit() };
        Self { runtime: ManuallyDrop::new(runtime) }
    }

    /// Enters the isolate.
    pub(crate) fn enter(&mut self) -> Entered<'_> {
        // SAFETY: the isolate belongs to this thread (an `Engine` is not `Send`); `Entered` leaves it again, in reverse order
        // of entering since it borrows the engine.
        unsafe { self.runtime.v8_isolate().enter() };
        Entered { engine: self }
    }

    /// The handle that other threads may use; needs no entered isolate.
    pub(crate) fn handle(&mut self) -> v8::IsolateHandle {
        self.runtime.v8_isolate().thread_safe_handle()
    }
}

impl Deref for Entered<'_> {
    type Target = JsRuntime;

    fn deref(&self) -> &JsRuntime {
        &self.engine.runtime
    }
}

impl DerefMut for Entered<'_> {
    fn deref_mut(&mut self) -> &mut JsRuntime {
        &mut self.engine.runtime
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // SAFETY: entered by `Engine::enter`, and everything entered since was left.
        unsafe { self.engine.runtime.v8_isolate().exit() };
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: dropping needs the isolate to be current, and leaves it. The runtime is not used afterwards.
        unsafe {
            self.runtime.v8_isolate().enter();
            ManuallyDrop::drop(&mut self.runtime);
        }
    }
}
