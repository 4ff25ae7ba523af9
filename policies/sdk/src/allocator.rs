//! The guest's allocator, made for short calls: every argument and answer of a pick is allocated and freed again, so blocks of a
//! power of two are kept in lists and handed out in a few instructions. Nothing is merged or given back: a policy's appetite is
//! the same on every call. One thread, as every guest of this contract.
#![expect(unsafe_code, reason = "an allocator hands out raw memory; natively the system's is used")]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::{memory_grow, memory_size};
use core::cell::Cell;
use core::ptr::null_mut;

#[global_allocator]
static ALLOCATOR: Blocks = Blocks::new();

/// The smallest block, 16 bytes, and so the alignment of all of them.
const SMALLEST: u32 = 4;
/// Classes of 16 B, 32 B, ... 1 GiB: more than the host ever grants.
const CLASSES: usize = 27;
const PAGE: usize = 64 * 1024;

/// Free blocks by class; the first word of a free block points at the next one.
struct Blocks {
    free: [Cell<*mut u8>; CLASSES],
    /// Memory that was never handed out: from `fresh` up to `end`.
    fresh: Cell<usize>,
    end: Cell<usize>,
}

// SAFETY: the target has no threads.
unsafe impl Sync for Blocks {}

impl Blocks {
    const fn new() -> Self {
        Self { free: [const { Cell::new(null_mut()) }; CLASSES], fresh: Cell::new(0), end: Cell::new(0) }
    }

    fn class(layout: Layout) -> usize {
        let bits = usize::BITS - layout.size().saturating_sub(1).leading_zeros();
        (bits.max(SMALLEST) - SMALLEST) as usize
    }

    #[cold]
    #[inline(never)]
    fn carve(&self, class: usize) -> *mut u8 {
        let Some(size) = 1_usize.checked_shl(class as u32 + SMALLEST).filter(|_| class < CLASSES) else {
            return null_mut();
        };
        if self.end.get() == 0 {
            self.start();
        }
        let (fresh, end) = (self.fresh.get(), self.end.get());
        if end - fresh < size {
            let pages = (size - (end - fresh)).div_ceil(PAGE);
            let grown = memory_grow(0, pages);
            // Only this allocator grows the memory, so what is added continues what is left.
            if grown == usize::MAX || grown * PAGE != end {
                return null_mut();
            }
            self.end.set(end + pages * PAGE);
        }
        self.fresh.set(fresh + size);
        fresh as *mut u8
    }

    /// Takes over what lies between the program's own data and the end of the first memory.
    fn start(&self) {
        unsafe extern "C" {
            static __heap_base: u8;
        }
        let base = &raw const __heap_base as usize;
        self.fresh.set(base.next_multiple_of(1 << SMALLEST));
        self.end.set(memory_size(0) * PAGE);
    }
}

// SAFETY: blocks are disjoint, at least as large as asked for, aligned to 16, and given out again only after they came back.
unsafe impl GlobalAlloc for Blocks {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Nothing in a policy is aligned to more than a vector.
        if layout.align() > 1 << SMALLEST {
            return null_mut();
        }
        let class = Self::class(layout);
        let block = self.free.get(class).map_or(null_mut(), Cell::get);
        if block.is_null() {
            return self.carve(class);
        }
        // SAFETY: a block in the list is free, and holds the address of the next one.
        self.free[class].set(unsafe { block.cast::<*mut u8>().read() });
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(list) = self.free.get(Self::class(layout)) {
            // SAFETY: the caller gives up the block, which is at least 16 bytes long and aligned.
            unsafe { block.cast::<*mut u8>().write(list.get()) };
            list.set(block);
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps `size` within bounds for this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if Self::class(layout) == Self::class(wanted) {
            return block;
        }
        // SAFETY: both blocks are as long as their layouts say, and apart.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}
