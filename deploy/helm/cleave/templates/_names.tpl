{{/* What several templates say in the same words. A node's name is passed as (list . "cloud"). */}}

{{- define "cleave.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "cleave.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "cleave.labels" -}}
{{- $root := index . 0 -}}
{{ include "cleave.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "cleave.serviceAccount" -}}
{{- default (ternary (include "cleave.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end }}

{{/* An image and a chart of the same version belong together, unless a tag or a digest says otherwise. */}}
{{- define "cleave.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (index . 0).Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end }}

{{/* The headless service: one address for each pod that is ready. */}}
{{- define "cleave.cloudHost" -}}
{{- printf "%s-cloud.%s.svc" (include "cleave.fullname" .) .Release.Namespace -}}
{{- end }}

{{- define "cleave.cloudUrl" -}}
{{- $scheme := ternary "https" "http" .Values.security.mutualTls -}}
{{- printf "%s://%s:%v" $scheme (include "cleave.cloudHost" .) .Values.cloud.service.port -}}
{{- end }}

{{/* Whether the cloud has, or may have, more than one pod. */}}
{{- define "cleave.severalClouds" -}}
{{- $scaling := .Values.cloud.autoscaling -}}
{{- if gt (int (ternary $scaling.maxReplicas .Values.cloud.replicas $scaling.enabled)) 1 }}true{{ end -}}
{{- end }}

{{- define "cleave.scrape" -}}
{{- if not .root.Values.podMonitor.enabled }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: /metrics
{{- if eq .scheme "HTTPS" }}
prometheus.io/scheme: https
{{- end }}
{{- end }}
{{- end }}
