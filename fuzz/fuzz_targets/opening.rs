//! The first packet of a stranger.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgusher::wire::{CANCEL_KEY_BYTES_MAX, Opening, frontend, parse_opening};

fuzz_target!(|bytes: &[u8]| {
    match parse_opening(bytes) {
        Ok(Opening::Startup(packet)) if packet.minor == 0 && packet.unknown_options.is_empty() => {
            let mut again = Vec::new();
            let pairs = packet
                .parameters
                .iter()
                .map(|(name, value)| (&**name, &**value));
            frontend::startup(&mut again, pairs);
            assert_eq!(
                &again[4..],
                bytes,
                "a packet that was read is written the same"
            );
        }
        Ok(Opening::Cancel(key)) => {
            assert!((4..=CANCEL_KEY_BYTES_MAX).contains(&key.secret.len()));
            let mut again = Vec::new();
            frontend::cancel(&mut again, &key);
            assert_eq!(&again[4..], bytes);
        }
        _ => {}
    }
});
