use crate::config::Activation;
use crate::link::sigmoid;

/// Below this distance a secant is lost in rounding: the slope stands for it.
const CLOSE: f64 = 1e-9;

impl Activation {
    pub fn value(self, z: f64) -> f64 {
        match self {
            Self::Relu => z.max(0.0),
            Self::Silu => z * sigmoid(z),
        }
    }

    pub fn slope(self, z: f64) -> f64 {
        match self {
            Self::Relu => f64::from(u8::from(z > 0.0)),
            Self::Silu => {
                let s = sigmoid(z);
                s * (1.0 + z * (1.0 - s))
            }
        }
    }

    /// The mean slope between two points: how much of a difference passes.
    pub fn secant(self, from: f64, to: f64) -> f64 {
        let distance = to - from;
        if distance.abs() < CLOSE {
            return self.slope(f64::midpoint(from, to));
        }
        (self.value(to) - self.value(from)) / distance
    }
}
