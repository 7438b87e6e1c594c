//! What the numbers of a tensor are, as far as a delta has to know.

/// Element types whose numbers are coded as numbers. Others go as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Element {
    /// Single precision.
    Float32 = 0,
    /// Half precision.
    Float16 = 1,
    /// The upper half of single precision.
    BFloat16 = 2,
    /// Two numbers of four bits in each byte.
    Int4 = 3,
    /// Eight bits, signed or not; also the small floats.
    Int8 = 4,
    /// 16 bits, signed or not.
    Int16 = 5,
    /// 32 bits, signed or not.
    Int32 = 6,
}

/// How many there are.
pub(crate) const ELEMENTS: usize = 7;

/// A float's parts, in bits, below its sign.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloatParts {
    pub(crate) exponent: u32,
    pub(crate) mantissa: u32,
}

impl Element {
    /// All, by their numbers.
    pub(crate) const ALL: [Self; ELEMENTS] = [
        Self::Float32,
        Self::Float16,
        Self::BFloat16,
        Self::Int4,
        Self::Int8,
        Self::Int16,
        Self::Int32,
    ];

    /// By ONNX's number for it (`TensorProto.DataType`); none for those that go as bytes.
    pub fn of_onnx(data_type: i32) -> Option<Self> {
        Some(match data_type {
            1 => Self::Float32,
            10 => Self::Float16,
            16 => Self::BFloat16,
            21 | 22 => Self::Int4,
            2 | 3 | 17..=20 => Self::Int8,
            4 | 5 => Self::Int16,
            6 | 12 => Self::Int32,
            _ => return None,
        })
    }

    /// Bits of one number.
    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::Float32 | Self::Int32 => 32,
            Self::Float16 | Self::BFloat16 | Self::Int16 => 16,
            Self::Int8 => 8,
            Self::Int4 => 4,
        }
    }

    /// Bytes that a whole number of numbers takes.
    pub(crate) fn bytes(self) -> usize {
        self.bits().div_ceil(8) as usize
    }

    pub(crate) fn float_parts(self) -> Option<FloatParts> {
        match self {
            Self::Float32 => Some(FloatParts { exponent: 8, mantissa: 23 }),
            Self::Float16 => Some(FloatParts { exponent: 5, mantissa: 10 }),
            Self::BFloat16 => Some(FloatParts { exponent: 8, mantissa: 7 }),
            _ => None,
        }
    }
}
