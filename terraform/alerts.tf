# What to do when one fires stands in docs/operations.md, whose headings are the alerts' names.
resource "google_monitoring_notification_channel" "email" {
  count = var.alert_email == "" ? 0 : 1

  display_name = "Recado"
  type         = "email"
  labels       = { email_address = var.alert_email }
  depends_on   = [google_project_service.api]
}

locals {
  subscription_metric = "resource.type = \"pubsub_subscription\" AND metric.type = \"pubsub.googleapis.com/subscription"

  alerts = {
    "A delivery was given up" = {
      filter      = "${local.subscription_metric}/num_undelivered_messages\" AND resource.labels.subscription_id = \"${google_pubsub_subscription.dead_deliveries.name}\""
      denominator = null
      aligner     = "ALIGN_MAX"
      threshold   = 0
      duration    = "0s"
    }
    "A result was given up" = {
      filter      = "${local.subscription_metric}/dead_letter_message_count\" AND resource.labels.subscription_id = \"${google_pubsub_subscription.results.name}\""
      denominator = null
      aligner     = "ALIGN_DELTA"
      threshold   = 0
      duration    = "0s"
    }
    "Wakes wait too long" = {
      filter      = "${local.subscription_metric}/oldest_unacked_message_age\" AND resource.labels.subscription_id = \"${google_pubsub_subscription.wakes.name}\""
      denominator = null
      aligner     = "ALIGN_MAX"
      threshold   = 600 # a healthy wake waits while its slice runs, 480 s at most
      duration    = "0s"
    }
    "Receipts wait too long" = {
      filter      = "${local.subscription_metric}/oldest_unacked_message_age\" AND resource.labels.subscription_id = \"${google_pubsub_subscription.deliveries.name}\""
      denominator = null
      aligner     = "ALIGN_MAX"
      threshold   = 300
      duration    = "0s"
    }
    "A function fails" = {
      filter      = "resource.type = \"cloud_run_revision\" AND metric.type = \"run.googleapis.com/request_count\" AND metric.labels.response_code_class = \"5xx\""
      denominator = "resource.type = \"cloud_run_revision\" AND metric.type = \"run.googleapis.com/request_count\""
      aligner     = "ALIGN_RATE"
      threshold   = 0.05
      duration    = "300s"
    }
  }
}

resource "google_monitoring_alert_policy" "alert" {
  for_each = local.alerts

  display_name          = "Recado: ${each.key}"
  combiner              = "OR"
  notification_channels = google_monitoring_notification_channel.email[*].id

  conditions {
    display_name = each.key
    condition_threshold {
      filter             = each.value.filter
      denominator_filter = each.value.denominator
      comparison         = "COMPARISON_GT"
      threshold_value    = each.value.threshold
      duration           = each.value.duration

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = each.value.aligner
        cross_series_reducer = each.value.denominator == null ? "REDUCE_MAX" : "REDUCE_SUM"
        group_by_fields      = each.value.denominator == null ? [] : ["resource.label.service_name"]
      }

      dynamic "denominator_aggregations" {
        for_each = each.value.denominator == null ? [] : [true]
        content {
          alignment_period     = "300s"
          per_series_aligner   = "ALIGN_RATE"
          cross_series_reducer = "REDUCE_SUM"
          group_by_fields      = ["resource.label.service_name"]
        }
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "What to do: docs/operations.md, \"${each.key}\"."
  }

  depends_on = [google_project_service.api]
}
