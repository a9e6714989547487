{{/* What pods may connect to. */}}

{{- define "cleave.dnsEgress" -}}
- to:
    - namespaceSelector: {}
      podSelector:
        matchLabels:
          k8s-app: kube-dns
    # NodeLocal DNSCache.
    - ipBlock:
        cidr: 169.254.0.0/16
  ports:
    - protocol: UDP
      port: 53
    - protocol: TCP
      port: 53
{{- end }}

{{- define "cleave.portsEgress" -}}
{{- with .Values.networkPolicy.egressPorts -}}
- ports:
    {{- range . }}
    - protocol: TCP
      port: {{ . }}
    {{- end }}
{{- end }}
{{- end }}
