#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_core::TimelineId;
use seawall_pgdata::history::Ancestry;

fuzz_target!(|input: (u32, &[u8])| {
    let (timeline, bytes) = input;
    let Ok(ancestry) = Ancestry::parse(TimelineId(timeline), bytes) else { return };
    assert_eq!(ancestry.tip(), TimelineId(timeline));
    let mut spans = ancestry.spans().peekable();
    while let Some(span) = spans.next() {
        assert_eq!(span.end, spans.peek().map(|next| next.begin), "one unbroken log");
        assert!(span.end.is_none_or(|end| span.begin <= end));
    }
});
