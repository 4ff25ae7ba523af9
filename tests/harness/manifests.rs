//! Manifests as text, for tests: short forms of what people write.

use std::fmt::Write as _;

/// A gateway named `gw` over one service per model, each with static URLs.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    spec: String,
    services: Vec<(String, Vec<String>, String)>,
    documents: String,
}

impl Manifest {
    /// An empty gateway.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds lines to the gateway's `spec`, such as `routeStrategy: round-robin`; indentation is kept.
    #[must_use]
    pub fn gateway(mut self, lines: &str) -> Self {
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            let _ = writeln!(self.spec, "  {line}");
        }
        self
    }

    /// Adds a model served at `urls`.
    #[must_use]
    pub fn model(self, model: &str, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.model_with(model, urls, "")
    }

    /// Adds a model served at `urls`, with more lines for the service's `spec`.
    #[must_use]
    pub fn model_with(
        mut self,
        model: &str,
        urls: impl IntoIterator<Item = impl Into<String>>,
        lines: &str,
    ) -> Self {
        self.services.push((model.into(), urls.into_iter().map(Into::into).collect(), lines.into()));
        self
    }

    /// Adds a whole document.
    #[must_use]
    pub fn document(mut self, text: &str) -> Self {
        let _ = writeln!(self.documents, "---\n{text}");
        self
    }

    /// The YAML.
    pub fn yaml(&self) -> String {
        let mut text = String::from(
            "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {name: gw}\nspec:\n",
        );
        text += &self.spec;
        text += "  routes:\n";
        for (index, (model, ..)) in self.services.iter().enumerate() {
            let _ = writeln!(text, "    - {{model: {model:?}, inferenceServiceRef: svc-{index}}}");
        }
        if self.services.is_empty() {
            text = text.replace("  routes:\n", "  routes: []\n");
        }
        for (index, (model, urls, lines)) in self.services.iter().enumerate() {
            let _ = write!(
                text,
                "---\napiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {{name: svc-{index}}}\n\
                 spec:\n  modelName: {model:?}\n  backendRef: {{kind: Static, urls: {urls:?}}}\n"
            );
            for line in lines.lines().filter(|line| !line.trim().is_empty()) {
                let _ = writeln!(text, "  {line}");
            }
        }
        text + &self.documents
    }
}
