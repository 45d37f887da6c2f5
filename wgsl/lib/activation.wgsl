// Activations of single numbers, for the ends of products.
const root_2_over_pi = 0.7978845608028654;

fn sigmoid(v: f32) -> f32 { return 1.0 / (1.0 + exp(-v)); }

// kind 1: SiLU, kind 2: GELU in its tanh form (one exp; tanh itself overflows in some drivers); anything else: v.
fn activated(kind: u32, v: f32) -> f32 {
  if (kind == 1u) { return v * sigmoid(v); }
  if (kind == 2u) { return v * sigmoid(2.0 * root_2_over_pi * (v + 0.044715 * v * v * v)); }
  return v;
}
