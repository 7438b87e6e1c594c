use super::*;
use hound::{SampleFormat, WavSpec, WavWriter};

/// A file as another implementation writes it (plain for 16 bits, extensible for more).
fn file(channels: u16, bits: u16, format: SampleFormat, samples: &[i32]) -> Vec<u8> {
    let spec =
        WavSpec { channels, sample_rate: 16_000, bits_per_sample: bits, sample_format: format };
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
    for sample in samples {
        match format {
            SampleFormat::Int => writer.write_sample(*sample).unwrap(),
            SampleFormat::Float => writer.write_sample(*sample as f32 / 4.0).unwrap(),
        }
    }
    writer.finalize().unwrap();
    bytes.into_inner()
}

fn good() -> Vec<u8> {
    file(1, 16, SampleFormat::Int, &[0, 16_384, -32_768, 32_767])
}

/// Where a chunk's body begins.
fn body(file: &[u8], id: &[u8; 4]) -> usize {
    file.windows(4).position(|name| name == id).unwrap() + 8
}

#[test]
fn every_encoding() {
    let check = |bits, format, samples: &[i32], expected: &[f32]| {
        let sound = read(&file(1, bits, format, samples)).unwrap();
        assert_eq!((sound.rate_hz, sound.samples.as_slice()), (16_000, expected), "{bits}");
    };
    check(16, SampleFormat::Int, &[0, 16_384, -32_768], &[0.0, 0.5, -1.0]);
    check(24, SampleFormat::Int, &[0, 1 << 22, -(1 << 23)], &[0.0, 0.5, -1.0]);
    check(32, SampleFormat::Int, &[0, 1 << 30, i32::MIN], &[0.0, 0.5, -1.0]);
    check(32, SampleFormat::Float, &[0, 2, -4, 8], &[0.0, 0.5, -1.0, 2.0]);
    check(16, SampleFormat::Int, &[], &[]);
}

#[test]
fn channels_are_averaged() {
    let stereo = file(2, 16, SampleFormat::Int, &[16_384, 0, -16_384, 16_384]);
    assert_eq!(read(&stereo).unwrap().samples, [0.25, 0.0]);
    let eight = file(8, 24, SampleFormat::Int, &[1 << 22; 16]);
    assert_eq!(read(&eight).unwrap().samples, [0.5, 0.5]);
}

#[test]
fn other_chunks_are_skipped() {
    let mut file = good();
    let data = body(&file, b"data") - 8;
    file.splice(data..data, *b"LIST\x03\0\0\0abc\0"); // of odd length, and so padded
    assert_eq!(read(&file).unwrap().samples.len(), 4);
    file.extend_from_slice(b"cue \xff\xff\xff\xff"); // behind the data, nobody looks
    assert_eq!(read(&file).unwrap().samples.len(), 4);
}

#[test]
fn truncated_at_every_length() {
    let file = good();
    for len in 0..file.len() {
        assert!(read(&file[..len]).is_err(), "{len} of {}", file.len());
    }
    let cut = read(&file[..file.len() - 3]);
    let expected = AudioError::Truncated { chunk: "data", promised: 8, actual: 5 };
    assert_eq!(cut, Err(expected));
}

/// The good file with some bytes of a chunk's body replaced.
fn spoiled(id: &[u8; 4], at: usize, bytes: &[u8]) -> AudioError {
    let mut file = good();
    let start = body(&file, id) + at;
    file[start..start + bytes.len()].copy_from_slice(bytes);
    read(&file).unwrap_err()
}

#[test]
fn headers_that_lie() {
    let promised = u64::from(u32::MAX);
    let mut large = good();
    let size = body(&large, b"data") - 4;
    large[size..size + 4].fill(0xFF);
    let expected = AudioError::Truncated { chunk: "data", promised, actual: 8 };
    assert_eq!(read(&large), Err(expected), "4 GB, of which 8 bytes are there");

    let tag = |tag: u16| spoiled(b"fmt ", 0, &tag.to_le_bytes());
    assert_eq!(tag(0x55), AudioError::Encoding { tag: 0x55, bits: 16 }); // MP3
    assert_eq!(tag(EXTENSIBLE), AudioError::Encoding { tag: EXTENSIBLE, bits: 16 });
    assert_eq!(tag(FLOAT), AudioError::Encoding { tag: FLOAT, bits: 16 });
    assert_eq!(spoiled(b"fmt ", 2, &[0, 0]), AudioError::Channels(0));
    assert_eq!(spoiled(b"fmt ", 2, &[9, 0]), AudioError::Channels(9));
    assert_eq!(spoiled(b"fmt ", 4, &[0; 4]), AudioError::Rate(0));
    assert_eq!(spoiled(b"fmt ", 4, &[0xFF; 4]), AudioError::Rate(u32::MAX));
    assert_eq!(spoiled(b"fmt ", 12, &[0, 0]), AudioError::Blocks { block: 0, data: 0 });
    assert_eq!(spoiled(b"fmt ", 14, &[0, 0]), AudioError::Encoding { tag: PCM, bits: 0 });
    assert_eq!(spoiled(b"fmt ", 14, &[8, 0]), AudioError::Encoding { tag: PCM, bits: 8 });
    let two = spoiled(b"fmt ", 12, &[4, 0]);
    assert_eq!(two, AudioError::Blocks { block: 4, data: 0 });
}

#[test]
fn other_files() {
    assert_eq!(read(b"\xff\xd8\xff"), Err(AudioError::NotWav));
    assert_eq!(read(b"RIFF\0\0\0\0WAVE"), Err(AudioError::NoChunk("fmt")));
    assert_eq!(read(b"RIFF\0\0\0\0WAVEdata\0\0\0\0"), Err(AudioError::NoChunk("fmt")));
    let file = good();
    assert_eq!(read(&file[..body(&file, b"data") - 8]), Err(AudioError::NoChunk("data")));
    let odd = file[..file.len() - 1].to_vec();
    let mut odd_header = odd;
    let size = body(&odd_header, b"data") - 4;
    odd_header[size] = 7;
    assert_eq!(read(&odd_header), Err(AudioError::Blocks { block: 2, data: 7 }));
}
