#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    mayfly_fuzz::verification::trusted_root(input);
});
