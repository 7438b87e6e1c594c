use super::*;

#[test]
fn an_order_says_what_it_does_not_know() {
    let error = |names: &[&str]| Order::parse(names).unwrap_err().to_string();
    let known = "tensorrt, cuda, openvino, coreml, directml, qnn, xnnpack";
    assert_eq!(
        error(&["cuda", "rocm"]),
        format!("there is no execution provider \"rocm\"; known are {known}")
    );
    assert!(error(&["cuda", "cpu"]).contains("leave \"cpu\" out"));
    assert_eq!(error(&["cuda", "cuda"]), "the execution provider \"cuda\" is named twice");
    let names = ACCELERATORS.map(Provider::as_str);
    assert_eq!(Order::parse(&names), Ok(Order::default()));
    assert_eq!(Order::parse::<&str>(&[]).unwrap().providers(), []);
}

#[test]
fn a_choice_survives_being_kept() {
    let passed_over = vec![
        PassedOver { provider: Provider::TensorRt, reason: Reason::NotBuiltIn },
        PassedOver {
            provider: Provider::Xnnpack,
            reason: Reason::Slower { provider_us: 3100, cpu_us: 850 },
        },
        PassedOver { provider: Provider::Qnn, reason: Reason::Later { used: Provider::Cuda } },
    ];
    let choice = Choice {
        provider: Provider::Cuda,
        nodes: Some(NodeCount { taken: 7, all: 9 }),
        probes: Agreement::Within,
        timing: Some(Timing { provider_us: 1, cpu_us: 2 }),
        passed_over,
    };
    let json = serde_json::to_string(&choice).unwrap();
    assert_eq!(serde_json::from_str::<Choice>(&json).unwrap(), choice);
    let reasons: Vec<String> = choice.passed_over.iter().map(|p| p.reason.to_string()).collect();
    assert_eq!(
        reasons,
        [
            "this build of ONNX Runtime does not have it",
            "slower than the CPU: 3.1 ms against 0.850 ms",
            "cuda comes first and is used",
        ]
    );
    for passed in &choice.passed_over {
        let json = serde_json::to_value(&passed.reason).unwrap();
        assert_eq!(json["kind"], passed.reason.kind());
    }
}
