// y = x, element by element: puts a result into a window of a larger tensor.                   x, y (size), in parts
import package::lib::part::{part, wide};
import package::lib::map::my_parts;

struct Params { size: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<part>;
@group(0) @binding(2) var<storage, read_write> y: array<part>;

@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) { y[i] = x[i]; }
}

// The same from f32 to the storage type, and back.
@group(0) @binding(1) var<storage, read> full: array<wide>;
@compute @workgroup_size(256)
fn narrow(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) { y[i] = part(full[i]); }
}

@group(0) @binding(2) var<storage, read_write> widened: array<wide>;
@compute @workgroup_size(256)
fn widen(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.size);
  for (var i = mine.x; i < mine.y; i++) { widened[i] = wide(x[i]); }
}
