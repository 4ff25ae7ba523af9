//! The simulated engines, and the manifests that a cluster would hold for them.

use std::fmt::Write as _;

use engine::core::CoreConfig;
use engine::http::{Config, Engine, EngineHandle};
use engine::workload::Workload;

/// The model that the trace talks to.
pub(crate) const CHAT_MODEL: &str = "llama3-70b";
/// The model that every tenth conversation talks to.
pub(crate) const AGENT_MODEL: &str = "mistral3";
const LLAMA2: &str = "meta-llama/Llama-2-70b-chat-hf";

/// Engines per core service: eight carry the trace, as in the published comparisons on Mooncake's.
const CHAT_ENGINES: usize = 8;
const AGENT_ENGINES: usize = 2;
/// KV cache of one engine, tokens.
const KV_TOKENS: u64 = 1_000_000;
/// Share of their time that engines would compute if a quarter of the prompts were cached.
const UTILISATION: f64 = 0.6;

/// Running engines, by the Kubernetes Service they stand behind.
#[derive(Debug)]
pub(crate) struct Fleet {
    services: Vec<(&'static str, &'static str, Vec<EngineHandle>)>,
}

impl Fleet {
    /// Starts engines that are as fast as the workload needs them to be.
    pub(crate) async fn start(workload: &Workload, scale: u32) -> anyhow::Result<Self> {
        let span = workload.span().as_secs_f64().max(1.0);
        let prefill = workload.prompt_tokens() as f64 * 0.75 / span / CHAT_ENGINES as f64 / UTILISATION;
        let core = CoreConfig {
            prefill_tokens_per_second: prefill,
            step_base: std::time::Duration::from_millis(2),
            step_per_sequence: std::time::Duration::from_micros(20),
            step_tokens_max: 8_192,
            ..CoreConfig::default()
        }
        .with_kv_tokens(KV_TOKENS, workload.block_tokens);
        let mut services = Vec::new();
        for (service, model, count) in [
            ("llama3-engines", CHAT_MODEL, CHAT_ENGINES),
            ("mistral-engines", AGENT_MODEL, AGENT_ENGINES),
            ("llama2-service-backend", LLAMA2, 1),
        ] {
            let mut engines = Vec::new();
            for index in 0..count {
                engines.push(
                    Engine::start(Config {
                        name: Some(format!("{service}-{index}")),
                        bytes_per_token: workload.bytes_per_token(scale),
                        max_model_len: 1 << 20,
                        log_max: 0,
                        ..Config::model(model).simulated(core.clone())
                    })
                    .await?,
                );
            }
            services.push((service, model, engines));
        }
        Ok(Self { services })
    }

    /// Number of engines.
    pub(crate) fn len(&self) -> usize {
        self.services.iter().map(|(.., engines)| engines.len()).sum()
    }

    /// Every engine with its model.
    pub(crate) fn engines(&self) -> impl Iterator<Item = (&'static str, &EngineHandle)> {
        self.services.iter().flat_map(|(_, model, engines)| engines.iter().map(|engine| (*model, engine)))
    }

    /// The manifests: two of the production stack's samples, byte for byte, and what they refer to.
    pub(crate) fn manifests(&self) -> Vec<(String, String)> {
        vec![
            ("basic-inference.yaml".into(), BASIC_INFERENCE.into()),
            ("gateway.yaml".into(), gateway(Phase::Stateful)),
            ("services.yaml".into(), SERVICES.into()),
            ("engines.yaml".into(), self.slices()),
        ]
    }

    /// A Service per group of engines, and an EndpointSlice per engine: each has a port of its own on this machine.
    fn slices(&self) -> String {
        let mut text = String::new();
        for (service, _, engines) in &self.services {
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {service}}}\n\
                 spec: {{clusterIP: None, ports: [{{name: http, port: 8000}}]}}\n"
            );
            for (index, engine) in engines.iter().enumerate() {
                let _ = write!(
                    text,
                    "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                     metadata:\n  name: {service}-{index}\n  labels: {{kubernetes.io/service-name: {service}}}\n\
                     ports: [{{name: http, port: {port}}}]\nendpoints:\n  - addresses: [\"{ip}\"]\n    conditions: {{ready: true}}\n",
                    ip = engine.addr().ip(),
                    port = engine.addr().port()
                );
            }
        }
        text
    }
}

/// Which chain decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Session affinity, prefix hash, GPU-load aware.
    Stateful,
    /// Round robin alone, to see the difference.
    RoundRobin,
}

impl Phase {
    /// Its policies, in the order in which they are asked.
    pub(crate) const fn policies(self) -> &'static str {
        match self {
            Self::Stateful => "session-affinity, prefix-hash, gpu-load-aware",
            Self::RoundRobin => "round-robin",
        }
    }
}

/// The gateway's manifest in a phase.
pub(crate) fn gateway(phase: Phase) -> String {
    match phase {
        Phase::Stateful => LLM_GATEWAY.into(),
        Phase::RoundRobin => LLM_GATEWAY.replace(
            "  schedulingPolicy: \"gpu-load-aware\"\n  routeStrategy: \"PrefixHash\"\n  sessionAffinity: true\n",
            "  routeStrategy: \"round-robin\"\n",
        ),
    }
}

const BASIC_INFERENCE: &str = r#"apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata:
  name: basic-inference
spec:
  modelName: "meta-llama/Llama-2-70b-chat-hf"
  backendRef: "llama2-service-backend"
  inferenceCacheRef: "llama2-cache"
  nlpFilters:
    semanticCache:
      storeRef: "redis-nlp-cache"
      threshold: 0.85
      ttlSeconds: 3600
"#;

const LLM_GATEWAY: &str = r#"apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceGateway
metadata:
  name: llm-gateway
spec:
  schedulingPolicy: "gpu-load-aware"
  routeStrategy: "PrefixHash"
  sessionAffinity: true
  routes:
    - model: "llama3-70b"
      inferenceServiceRef: "llama3-chatbot-service"
    - model: "mistral3"
      inferenceServiceRef: "mistral-agent-service"
"#;

const SERVICES: &str = r#"apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: llama3-chatbot-service}
spec: {modelName: llama3-70b, backendRef: llama3-engines}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceService
metadata: {name: mistral-agent-service}
spec: {modelName: mistral3, backendRef: mistral-engines}
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceGateway
metadata: {name: llama2-gateway}
spec:
  routeStrategy: round-robin
  routes: [{model: meta-llama/Llama-2-70b-chat-hf, inferenceServiceRef: basic-inference}]
---
apiVersion: production-stack.vllm.ai/v1alpha1
kind: InferenceCache
metadata: {name: llama2-cache}
spec:
  modelName: meta-llama/Llama-2-70b-chat-hf
  kvCacheTransferPolicy: {thresholdHitRate: 0.8, evictionThreshold: 0.9}
"#;
