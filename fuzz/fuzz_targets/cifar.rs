#![no_main]

heat_fuzz::target!("cifar");
