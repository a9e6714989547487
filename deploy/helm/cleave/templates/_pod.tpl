{{/* Parts of both nodes' pods. */}}

{{- define "cleave.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
# Volumes are writable for, and keys readable by, this group.
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "cleave.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Variables of both: they go over the file. */}}
{{- define "cleave.env" -}}
- name: CLEAVE_RUNS__DIR
  value: /var/lib/cleave
{{- if .Values.security.mutualTls }}
- name: CLEAVE_SECURITY__CA
  value: /identity/ca.crt
- name: CLEAVE_SECURITY__CERTIFICATE
  value: /identity/tls.crt
- name: CLEAVE_SECURITY__KEY
  value: /identity/tls.key
{{- end }}
{{- with .Values.runs }}
{{- if .store }}
- name: CLEAVE_RUNS__STORE
  value: {{ .store | quote }}
{{- if hasPrefix "s3://" .store }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ required "runs.s3.existingSecret: a store of s3:// needs a secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" $.Values.runs.s3.existingSecret }}
      key: {{ . }}
{{- end }}
- name: AWS_REGION
  value: {{ .s3.region | quote }}
{{- with .s3.endpoint }}
- name: AWS_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- if .s3.allowHttp }}
- name: AWS_ALLOW_HTTP
  value: "true"
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "cleave.mounts" -}}
- name: config
  mountPath: /etc/cleave
  readOnly: true
- name: runs
  mountPath: /var/lib/cleave
- name: tmp
  mountPath: /tmp
{{- if .Values.security.mutualTls }}
- name: identity
  mountPath: /identity
  readOnly: true
{{- end }}
{{- if .Values.models.existingClaim }}
- name: models
  mountPath: /models
  readOnly: true
{{- end }}
{{- end }}

{{/* All but runs, which is each node's own affair. */}}
{{- define "cleave.volumes" -}}
{{- $root := index . 0 -}}
# The folder, not a subPath, which a changed ConfigMap would never reach.
- name: config
  configMap:
    name: {{ include "cleave.fullname" $root }}
    items:
      - key: cleave.toml
        path: cleave.toml
      {{- range $name, $_ := $root.Values.linkProfiles }}
      - key: link-{{ $name }}.toml
        path: links/{{ $name }}.toml
      {{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 256Mi
{{- if $root.Values.security.mutualTls }}
- name: identity
  secret:
    secretName: {{ index . 1 }}
    defaultMode: 0440
    items:
      - key: ca.crt
        path: ca.crt
      - key: tls.crt
        path: tls.crt
      - key: tls.key
        path: tls.key
{{- end }}
{{- with $root.Values.models.existingClaim }}
- name: models
  persistentVolumeClaim:
    claimName: {{ . }}
    readOnly: true
{{- end }}
{{- end }}

{{/* The services forget a pod while it still answers: new connections go elsewhere before the old ones end. */}}
{{- define "cleave.lifecycle" -}}
preStop:
  sleep:
    seconds: {{ .Values.termination.delaySeconds }}
{{- end }}

{{- define "cleave.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* How long a node lets requests under way go on once it was asked to end: DRAIN in both nodes' stack.rs. */}}
{{- define "cleave.drainSeconds" -}}8{{- end }}

{{- define "cleave.graceSeconds" -}}
{{- $times := .Values.termination -}}
{{- $least := add $times.delaySeconds (include "cleave.drainSeconds" .) 1 -}}
{{- if lt (int $times.graceSeconds) (int $least) -}}
{{- fail (printf "termination.graceSeconds: %v s end a pod amid its requests: at least %v, which is delaySeconds, the %s s that a node takes, and one more" $times.graceSeconds $least (include "cleave.drainSeconds" .)) -}}
{{- end -}}
{{- $times.graceSeconds -}}
{{- end }}
