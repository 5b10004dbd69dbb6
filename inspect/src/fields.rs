//! Reads a structure from its front. What is too short for what it announces is [`Short`], and no bytes are skipped.

/// The structure ends before the field does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short;

/// What is left of a structure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Short> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Short> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Short> {
        self.take(4).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A vector whose length is a byte (RFC 8446 §3.4).
    pub(crate) fn vector8(&mut self) -> Result<Self, Short> {
        let length = usize::from(self.u8()?);
        self.take(length).map(Fields)
    }

    /// A vector whose length is two bytes (RFC 8446 §3.4).
    pub(crate) fn vector16(&mut self) -> Result<Self, Short> {
        let length = usize::from(self.u16()?);
        self.take(length).map(Fields)
    }

    /// QUIC's number of 1, 2, 4 or 8 bytes, below 2^62 (RFC 9000 §16); a longer form than needed is allowed.
    pub(crate) fn varint(&mut self) -> Result<u64, Short> {
        let first = *self.0.first().ok_or(Short)?;
        let bytes = self.take(1 << (first >> 6))?;
        let value = bytes.iter().fold(0, |value: u64, &byte| value << 8 | u64::from(byte));
        Ok(value & (u64::MAX >> 2 >> (64 - 8 * bytes.len())))
    }

    /// Bytes behind a length as [`Self::varint`].
    pub(crate) fn vector_varint(&mut self) -> Result<&'a [u8], Short> {
        let length = usize::try_from(self.varint()?).map_err(|_| Short)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 9000 §A.1.
    #[test]
    fn quics_numbers() {
        let read = |bytes: &[u8]| Fields(bytes).varint();
        assert_eq!(read(&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]), Ok(151_288_809_941_952_652));
        assert_eq!(read(&[0x9d, 0x7f, 0x3e, 0x7d]), Ok(494_878_333));
        assert_eq!(read(&[0x7b, 0xbd]), Ok(15_293));
        assert_eq!(read(&[0x25]), Ok(37));
        assert_eq!(read(&[0x40, 0x25]), Ok(37));
        assert_eq!(read(&[0xff; 8]), Ok((1 << 62) - 1));
        assert_eq!(read(&[0xc0, 0, 0]), Err(Short));
        assert_eq!(read(&[]), Err(Short));
    }

    #[test]
    fn nothing_is_taken_past_the_end() {
        let mut fields = Fields(&[2, 1]);
        assert_eq!(fields.u32(), Err(Short));
        assert!(fields.vector8().is_err());
        assert_eq!(Fields(&[0, 1, 7]).vector16().unwrap().0, [7]);
    }
}
