//! Structs that the kernel's programs share with the daemon, byte by byte.

/// A field as the C side must have it too: name, offset, size in bytes.
pub(crate) type Field = (&'static str, usize, usize);

/// The C struct that a Rust struct mirrors.
pub(crate) trait Plain: aya::Pod {
    /// Its tag in `bpf/tables.h`.
    #[cfg_attr(not(test), expect(dead_code, reason = "compared with the object's BTF by a test"))]
    const C_NAME: &'static str;
    /// Its fields in order.
    #[cfg_attr(not(test), expect(dead_code, reason = "compared with the object's BTF by a test"))]
    const FIELDS: &'static [Field];

    /// Its bytes, as the kernel takes them.
    fn bytes(&self) -> &[u8] {
        // SAFETY: the struct's own memory, as long as it is borrowed; `Pod` has no padding and no interior change.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// The struct that `bytes` begin with; `None` if they are too few.
    fn decode(bytes: &[u8]) -> Option<Self> {
        // SAFETY: long enough, read unaligned, and any bits are valid (`Pod`).
        (bytes.len() >= size_of::<Self>()).then(|| unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

/// Declares structs without padding whose fields are plain themselves; what is not so does not compile.
macro_rules! plain {
    ($($(#[$meta:meta])* ($($repr:ident),+) $name:ident = $c:literal { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr($($repr),+)]
        pub(crate) struct $name { $(pub(crate) $field: $type,)* }

        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*, "there is padding");
        const _: fn() = || {
            fn is_plain<T: aya::Pod>() {}
            $(is_plain::<$type>();)*
        };
        // SAFETY: `repr(C)`, no padding, and every field takes any bits: the two constants above fail to compile otherwise.
        unsafe impl aya::Pod for $name {}

        impl $crate::sys::bpf_plain::Plain for $name {
            const C_NAME: &'static str = $c;
            const FIELDS: &'static [$crate::sys::bpf_plain::Field] = &[
                $((stringify!($field), std::mem::offset_of!($name, $field), size_of::<$type>()),)*
            ];
        }
    )*};
}
