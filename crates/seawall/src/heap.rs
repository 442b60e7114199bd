//! The C library's heap, told what this program needs.

/// Heaps the C library may keep beside each other. Every thread would get one of its own, and each
/// keeps what once passed through it; what passes here are buffers of megabytes, and few of them
/// at a time, so that threads hardly wait for each other.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Bounds the number of heaps. To be called while there is one thread.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "mallopt(3) has no safe wrapper")]
pub fn bound() {
    // SAFETY: mallopt changes a number in the allocator and is called before any other thread
    // runs. Should it refuse, more memory is used.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

/// Other C libraries have one heap.
#[cfg(not(target_env = "gnu"))]
pub fn bound() {}
