//! Sound that a speech detector takes for speech.

/// A second of silence, one of vowel-like sound, one of silence: a pulse train through two
/// resonances.
pub(crate) fn vowel(rate_hz: u32) -> Vec<f32> {
    let rate = rate_hz as f32;
    let mut samples = vec![0.0f32; 3 * rate_hz as usize];
    for (hz, width) in [(700.0f32, 90.0f32), (1200.0, 110.0)] {
        let radius = (-std::f32::consts::PI * width / rate).exp();
        let turn = 2.0 * radius * (std::f32::consts::TAU * hz / rate).cos();
        let (mut one, mut two) = (0.0f32, 0.0f32);
        for (i, sample) in samples.iter_mut().enumerate() {
            let voiced = (rate_hz as usize..2 * rate_hz as usize).contains(&i);
            let pulse = if voiced && i % (rate_hz as usize / 120) == 0 { 1.0 } else { 0.0 };
            let now = pulse + turn * one - radius * radius * two;
            (two, one) = (one, now);
            *sample += 0.1 * now;
        }
    }
    samples
}
