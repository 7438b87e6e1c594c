use super::*;

/// Two tones, one of which rises; 4,000 samples at 16 kHz.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn sound() -> Vec<f32> {
    let turn = std::f64::consts::TAU / 16_000.0;
    let sample =
        |i: f64| 0.5 * (turn * 440.0 * i).sin() + 0.25 * (turn * (3000.0 + 0.1 * i) * i).sin();
    (0..4000).map(|i| sample(f64::from(i)) as f32).collect()
}

fn htk() -> LogMel {
    LogMel {
        fft_size: 512,
        window: 400,
        hop: 160,
        mels: 40,
        min_hz: 20.0,
        max_hz: 7600.0,
        scale: MelScale::Htk,
        equal_area: false,
        log: Log::Ln,
        floor: 1e-6,
        center: false,
        order: MelOrder::MelTime,
    }
}

fn slaney() -> LogMel {
    LogMel {
        fft_size: 400,
        mels: 80,
        min_hz: 0.0,
        max_hz: 8000.0,
        scale: MelScale::Slaney,
        equal_area: true,
        log: Log::Log10,
        floor: 1e-10,
        center: true,
        ..htk()
    }
}

/// Corners and two numbers from the middle, as librosa 0.11 gives them for the same sound
/// (`melspectrogram` with `power=2`, `norm`, `htk`, `center` and `pad_mode="reflect"` accordingly).
fn check(step: &LogMel, shape: [usize; 2], mean: f32, expected: [f32; 6]) {
    let mel = Mel::new(step, 16_000).unwrap();
    let [mels, frames] = shape;
    assert_eq!((mel.mels(), mel.frames(4000)), (mels, Ok(frames)));
    let values = mel.apply(&sound(), |value, _| value).unwrap();
    let at = |band: usize, frame: usize| values[band * frames + frame];
    let corners = [
        at(0, 0),
        at(0, frames - 1),
        at(mels - 1, 0),
        at(mels - 1, frames - 1),
        at(10, 5),
        at(20, 12),
    ];
    for (actual, expected) in corners.into_iter().zip(expected) {
        assert!((actual - expected).abs() < 1e-3, "{corners:?}");
    }
    let sum: f32 = values.iter().sum();
    assert!((sum / (mels * frames) as f32 - mean).abs() < 1e-3, "{sum}");
}

#[test]
fn librosa_says_the_same() {
    let expected = [-6.920_93, -6.986_96, -13.815_51, -13.815_51, -4.341_51, -13.815_51];
    check(&htk(), [40, 22], -7.910_194, expected);
    let expected = [-0.013_22, -0.076_84, -2.952_72, -4.031_33, 1.394_95, -10.0];
    check(&slaney(), [80, 26], -7.542_678, expected);
}

#[test]
fn order_logarithm_and_finish() {
    let values = |step: &LogMel| {
        Mel::new(step, 16_000).unwrap().apply(&sound(), |value, band| value + band as f32).unwrap()
    };
    let mel_time = values(&htk());
    let time_mel = values(&LogMel { order: MelOrder::TimeMel, ..htk() });
    assert_eq!((mel_time[22], mel_time[1]), (time_mel[1], time_mel[40]));
    let [log10, db] = [Log::Log10, Log::Db].map(|log| values(&LogMel { log, ..htk() }));
    assert!(
        (log10[0] * 10.0 - db[0]).abs() < 1e-4
            && (log10[0] * 10f32.ln() - mel_time[0]).abs() < 1e-4
    );
}

#[test]
fn too_few_samples() {
    let needed = |step: &LogMel| match Mel::new(step, 16_000).unwrap().frames(100) {
        Err(AudioError::Short { actual: 100, needed }) => needed,
        other => panic!("{other:?}"),
    };
    assert_eq!((needed(&htk()), needed(&slaney())), (512, 201));
    assert_eq!(Mel::new(&slaney(), 16_000).unwrap().frames(201), Ok(2));
}

#[test]
fn numbers_outside_their_limits() {
    let spoils: [fn(&mut LogMel); 13] = [
        |s| s.fft_size = 1,
        |s| s.fft_size = 1 << 20,
        |s| s.window = 0,
        |s| s.window = 513,
        |s| s.hop = 0,
        |s| s.mels = 0,
        |s| s.mels = 513,
        |s| s.min_hz = -1.0,
        |s| s.min_hz = 7600.0,
        |s| s.max_hz = 8001.0,
        |s| s.max_hz = f32::NAN,
        |s| s.floor = 0.0,
        |s| s.floor = f32::INFINITY,
    ];
    for spoil in spoils {
        let mut step = htk();
        spoil(&mut step);
        let refused = Mel::new(&step, 16_000);
        assert!(matches!(refused, Err(InvalidPipeline::Size { step: "log-mel", .. })), "{step:?}");
    }
}
