// The storage type of activations. Kernels read it, compute in f32, and round once when they store.
@if(f16) alias elem = f16;
@if(!f16) alias elem = f32;
// The storage type of weights that a product reads: elem, or f16 under activations in f32.
@if(f16 || half_weights) alias stored = f16;
@if(!f16 && !half_weights) alias stored = f32;
