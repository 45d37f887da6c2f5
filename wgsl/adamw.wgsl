// AdamW with decoupled weight decay and the norm of all gradients clipped on the GPU.
//   m = b1 m + (1-b1) g      v = b2 v + (1-b2) g²      w = w (1 - lr·decay) - lr · (m / c1) / (sqrt(v / c2) + eps)
// g is the gradient times clip[0]. square_sum writes the parts of the squared norm, clip_factor adds them up.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::reduce::sum_workgroup;

struct Params { size: u32, beta1: f32, beta2: f32, eps: f32, decay: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gradient: array<elem>;
@group(0) @binding(2) var<storage, read> clip: array<f32>;
@group(0) @binding(3) var<storage, read_write> weight: array<elem>;
@group(0) @binding(4) var<storage, read_write> m: array<f32>;
@group(0) @binding(5) var<storage, read_write> v: array<f32>;
@group(0) @binding(6) var<storage, read> rates: array<f32>; // lr, c1, c2: they change from step to step

@compute @workgroup_size(64)
fn update(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.size) { return; }
  let g = f32(gradient[i]) * clip[0];
  m[i] = p.beta1 * m[i] + (1.0 - p.beta1) * g;
  v[i] = p.beta2 * v[i] + (1.0 - p.beta2) * g * g;
  let change = rates[0] * (m[i] / rates[1]) / (sqrt(v[i] / rates[2]) + p.eps);
  weight[i] = elem(f32(weight[i]) * (1.0 - rates[0] * p.decay) - change);
}

// parts[offset + group] = sum of squares of every `stride`-th run of 64 elements, in a fixed order
struct SumParams { size: u32, offset: u32 }
@group(0) @binding(0) var<uniform> s: SumParams;
@group(0) @binding(2) var<storage, read_write> parts: array<f32>;

@compute @workgroup_size(64)
fn square_sum(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
              @builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = group.x * 64u + lane; i < s.size; i += groups.x * 64u) {
    sum += f32(gradient[i]) * f32(gradient[i]);
  }
  sum = sum_workgroup(lane, sum);
  if (lane == 0u) { parts[s.offset + group.x] = sum; }
}

// clip = (min(1, largest / norm), norm); largest 0 means no clipping
struct ClipParams { count: u32, largest: f32 }
@group(0) @binding(0) var<uniform> c: ClipParams;
@group(0) @binding(1) var<storage, read> squares: array<f32>;
@group(0) @binding(2) var<storage, read_write> factor: array<f32>;

@compute @workgroup_size(64)
fn clip_factor(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < c.count; i += 64u) { sum += squares[i]; }
  let norm = sqrt(sum_workgroup(lane, sum));
  if (lane == 0u) {
    factor[0] = select(1.0, min(1.0, c.largest / max(norm, 1e-30)), c.largest > 0.0);
    factor[1] = norm;
  }
}
