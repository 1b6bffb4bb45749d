//! Our functions in JavaScript that Rust calls, taken from the snapshot when an isolate is born.

use deno_core::v8;

/// Where the snapshot leaves them; deleted as soon as they are taken.
const HOLDER: &str = "__selvedge";

/// One of the functions; see `js/globals.js`.
#[derive(Clone, Copy)]
pub(crate) enum Hook {
    Adopt,
    BodyData,
    BodyEnd,
    Cancel,
    Credited,
    Drop,
    FetchFailed,
    Fetched,
    Fire,
    Leave,
    Prepare,
    Purged,
    SettleNext,
    Settled,
    Start,
    Unhandled,
    WorkersModule,
}

/// Their names, in the order of [`Hook`].
const NAMES: [&str; 17] = [
    "adopt",
    "bodyData",
    "bodyEnd",
    "cancel",
    "credited",
    "drop",
    "fetchFailed",
    "fetched",
    "fire",
    "leave",
    "prepare",
    "purged",
    "settleNext",
    "settled",
    "start",
    "unhandled",
    "workersModule",
];

/// See the head of this file.
pub(crate) struct Hooks {
    functions: [v8::Global<v8::Function>; NAMES.len()],
}

impl Hooks {
    /// Takes the functions, starts the clock, and removes what a worker must not see from the global object.
    pub(crate) fn take(scope: &mut v8::PinScope<'_, '_>) -> Option<Self> {
        let global = scope.get_current_context().global(scope);
        let key = v8::String::new(scope, HOLDER)?;
        let holder: v8::Local<v8::Object> = global.get(scope, key.into())?.try_into().ok()?;
        let mut functions = Vec::with_capacity(NAMES.len());
        for name in NAMES {
            let name = v8::String::new(scope, name)?;
            let function: v8::Local<v8::Function> = holder.get(scope, name.into())?.try_into().ok()?;
            functions.push(v8::Global::new(scope, function));
        }
        let name = v8::String::new(scope, "startClock")?;
        let start_clock: v8::Local<v8::Function> = holder.get(scope, name.into())?.try_into().ok()?;
        let undefined = v8::undefined(scope);
        start_clock.call(scope, undefined.into(), &[])?;
        // V8 itself puts SharedArrayBuffer back when it restores a snapshot.
        for name in [HOLDER, "Deno", "__bootstrap", "SharedArrayBuffer"] {
            let name = v8::String::new(scope, name)?;
            global.delete(scope, name.into())?;
        }
        Some(Self { functions: functions.try_into().ok()? })
    }

    /// One of the functions.
    pub(crate) fn get(&self, hook: Hook) -> &v8::Global<v8::Function> {
        &self.functions[hook as usize]
    }
}

impl Hook {
    /// Its name, for the log.
    pub(crate) fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}
