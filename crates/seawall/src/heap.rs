//! The C library's heap, told what this program needs.

/// Bounds the number of heaps that the C library keeps beside each other, see
/// [`seawall_engine::job::Budget`]. To be called while no thread has much to do.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "mallopt(3) has no safe wrapper")]
pub fn bound(heaps: u16) {
    // SAFETY: mallopt takes the allocator's lock and changes a number in it. Should it refuse, more
    // memory is used.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, libc::c_int::from(heaps)) };
}

/// Other C libraries have one heap.
#[cfg(not(target_env = "gnu"))]
pub fn bound(_: u16) {}
