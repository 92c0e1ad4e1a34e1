// What AudioWorkletGlobalScope has (Web Audio API, 1.32); TypeScript's library for pages lacks it.

interface Processor {
  readonly port: MessagePort
  process(inputs: Float32Array[][], outputs: Float32Array[][]): boolean
}

interface Scope {
  AudioWorkletProcessor: abstract new () => Processor
  registerProcessor: (name: string, processor: new () => Processor) => void
}

const scope = globalThis as unknown as Scope

export const WorkletProcessor = scope.AudioWorkletProcessor

export function register(name: string, processor: new () => Processor): void {
  scope.registerProcessor(name, processor)
}
