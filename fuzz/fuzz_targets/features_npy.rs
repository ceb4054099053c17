#![no_main]

heat_fuzz::target!("features_npy");
